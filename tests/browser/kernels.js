// Runs the Rust tests on a device in this page: window.girihTests = { list, run }.
//
// A test that fails panics, and a panic ends its WASM instance. The next test gets a new one: a module with another
// query is another module to the browser, with its own instance and its own device.

// ?tier=t0 (or t1, ..); GIRIH_KERNEL and GIRIH_MODEL narrow tests down as the variables of the environment do natively.
const parameters = new URLSearchParams(location.search);
const tier = parameters.get("tier") ?? "t0";
const compiled = WebAssembly.compileStreaming(fetch("girih_browser_tests_bg.wasm"));

/** @type {Map<string, Uint8Array>} files that some test has needed */
const fetched = new Map();
let instances = 0;
let current = null;

async function instance() {
  if (current === null) {
    const tests = await import(`./girih_browser_tests.js?instance=${++instances}`);
    await tests.default({ module_or_path: await compiled });
    for (const [name, value] of parameters) if (name.startsWith("GIRIH_")) tests.set_variable(name, value);
    current = tests;
  }
  return current;
}

async function file(path) {
  let bytes = fetched.get(path);
  if (bytes === undefined) {
    const response = await fetch(`/${path}`);
    if (!response.ok) throw new Error(`/${path}: ${response.status} ${response.statusText}`);
    bytes = new Uint8Array(await response.arrayBuffer());
    fetched.set(path, bytes);
  }
  return bytes;
}

// A panic leaves the promise of its test pending and shows as an error of the page.
function failure(signal) {
  return new Promise((_, reject) => {
    addEventListener("error", event => reject(event.error ?? new Error(event.message)), { signal });
    addEventListener("unhandledrejection", event => reject(event.reason), { signal });
  });
}

async function run(name) {
  const tests = await instance();
  const done = new AbortController();
  let ok = true;
  let message = "";
  try {
    for (const path of tests.files(name)) tests.put_file(path, await file(path));
    await Promise.race([tests.run(name, tier), failure(done.signal)]);
  } catch (error) {
    ok = false;
    message = tests.last_panic() ?? String(error);
    current = null;
  } finally {
    done.abort();
  }
  return { ok, message, log: tests.take_log(), skipped: tests.take_skipped() ?? null };
}

window.girihTests = {
  list: async () => (await instance()).list(),
  run,
};
