// From where models come, and what goes over the network.
import type { Manifest, Model, ProgressEvent } from "./package.js";
import { test, type Test } from "./registry.js";
import { MODEL, PROMPT, bytes, bytesOf, file, golden, secondOrigin, sha256, watchRequests } from "./server.js";
import { engine, own, uncached, withEmptyCache } from "./setup.js";

const FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
const WEIGHTS = "model.safetensors";
const BLOCK = 4 << 20;

/** That a model works: the first tokens are those of the golden. */
async function tells(t: Test, model: Model): Promise<void> {
  const wanted = (await golden()).greedy[0]?.new_token_ids.slice(0, 6) ?? [];
  const { tokenIds } = await model.generate(PROMPT, { temperature: 0, maxTokens: 6 }).result;
  t.equal([...tokenIds], wanted, "first tokens");
}

/** The manifest of the model, with blocks of a size, or without. */
async function manifestOf(blockSize: number | null): Promise<Manifest> {
  const files: Manifest["files"] = {};
  for (const name of FILES) {
    const data = await bytes(MODEL + name);
    const entry: Manifest["files"][string] = { size: data.length, sha256: await sha256(data) };
    if (blockSize !== null) {
      const starts = Array.from({ length: Math.ceil(data.length / blockSize) }, (_, i) => i * blockSize);
      entry.blockSize = blockSize;
      entry.blocks = await Promise.all(starts.map((at) => sha256(data.slice(at, at + blockSize))));
    }
    files[name] = entry;
  }
  return { version: 1, files };
}

test("loading_reports_its_stages_in_order", async (t) => {
  const events: ProgressEvent[] = [];
  const girih = await own(t, { cache: "none", onProgress: (event) => events.push(event) });
  await girih.loadModel(MODEL);
  const stages = events.map(({ stage }) => stage);
  const order = [...new Set(stages)];
  t.equal(order[0], "engine", "the first stage");
  t.equal(stages.at(-1), "ready", "the last event");
  for (const [before, after] of [["download", "weights"], ["weights", "pipelines"]] as const) {
    t.ok(order.indexOf(before) >= 0 && order.indexOf(before) < order.indexOf(after), `${before} begins before ${after}: ${order.join()}`);
  }
  const size = (await bytes(MODEL + WEIGHTS)).length;
  const downloads = events.filter((e) => e.stage === "download" && e.file === WEIGHTS);
  t.equal(downloads.at(-1), { stage: "download", file: WEIGHTS, loaded: size, total: size, fromCache: 0 }, "the last bytes");
  for (const stage of ["weights", "pipelines"] as const) {
    const last = events.filter((event) => event.stage === stage).at(-1);
    t.ok(last !== undefined && "done" in last && last.done === last.total, `${stage} ends with all: ${JSON.stringify(last)}`);
  }
});

test("loading_fetches_every_byte_once", async (t) => {
  const girih = await uncached(t);
  const requests = await watchRequests();
  await girih.loadModel(MODEL, { manifest: false });
  const log = await requests(WEIGHTS);
  t.note(log);
  t.equal(bytesOf(log), (await bytes(MODEL + WEIGHTS)).length, "bytes of the weights");
  t.ok(log.every(({ status }) => status === 206), "all requests have ranges");
});

test("loading_again_needs_no_byte_of_the_network", async (t) => {
  const { girih } = await withEmptyCache(t);
  const first = await girih.loadModel(MODEL, { manifest: false });
  await tells(t, first);
  await first.dispose();
  const requests = await watchRequests();
  const events: ProgressEvent[] = [];
  await tells(t, await girih.loadModel(MODEL, { manifest: false, onProgress: (event) => events.push(event) }));
  const log = (await requests()).filter(({ path }) => path.startsWith(MODEL));
  t.note(log);
  t.equal(bytesOf(log), 0, "bytes from the network");
  t.ok(log.every(({ method }) => method === "HEAD"), "only versions are asked for");
  const last = events.filter((event) => event.stage === "download" && event.file === WEIGHTS).at(-1);
  t.ok(last?.stage === "download" && last.fromCache === last.total, `all from the cache: ${JSON.stringify(last)}`);
  const [cached, ...others] = await girih.cache.list();
  t.equal(others, [], "other models in the cache");
  t.ok(cached !== undefined && cached.complete && cached.url.endsWith(MODEL) && cached.bytes > 11e6, JSON.stringify(cached));
});

test("loading_with_a_manifest_asks_for_nothing_that_is_cached", async (t) => {
  const { girih } = await withEmptyCache(t);
  const manifest = await manifestOf(1 << 20);
  await girih.loadModel(MODEL, { manifest });
  const requests = await watchRequests();
  await tells(t, await girih.loadModel(MODEL, { manifest }));
  t.equal((await requests()).filter(({ path }) => path.startsWith(MODEL)), [], "requests");
});

test("loading_a_file_without_ranges", async (t) => {
  const { girih } = await withEmptyCache(t);
  const requests = await watchRequests();
  await tells(t, await girih.loadModel(`/fault/norange${MODEL}`, { manifest: false }));
  t.equal(bytesOf(await requests(WEIGHTS)), (await bytes(MODEL + WEIGHTS)).length, "bytes with a cache");
  const without = await uncached(t);
  await tells(t, await without.loadModel(`/fault/norange${MODEL}`, { manifest: false }));
});

test("loading_survives_broken_connections_and_fetches_nothing_twice", async (t) => {
  const { girih } = await withEmptyCache(t);
  const requests = await watchRequests();
  await tells(t, await girih.loadModel(`/fault/flaky/3/${crypto.randomUUID()}${MODEL}`, { manifest: false }));
  const log = await requests(WEIGHTS);
  t.note(log);
  const size = (await bytes(MODEL + WEIGHTS)).length;
  // What was on its way when a connection broke may be lost: less than a buffer of the browser each time.
  const excess = bytesOf(log) - size;
  t.ok(excess >= 0 && excess <= 3 * (1 << 20), `${excess} bytes were fetched twice`);
});

test("loading_goes_on_where_a_broken_load_ended", async (t) => {
  const { girih } = await withEmptyCache(t);
  const controller = new AbortController();
  const reason = new Error("enough");
  let arrived = 0;
  const failed = girih.loadModel(`/fault/slow/4000${MODEL}`, {
    manifest: false,
    signal: controller.signal,
    onProgress: (event) => {
      if (event.stage !== "download" || event.file !== WEIGHTS) return;
      arrived = event.loaded;
      if (arrived > 9 << 20) controller.abort(reason);
    },
  });
  t.equal(await t.thrown(failed), reason, "the reason");
  t.equal((await girih.cache.list()).map(({ complete }) => complete), [false], "complete");
  const requests = await watchRequests();
  // Another prefix is another URL; the same is needed.
  await tells(t, await girih.loadModel(`/fault/slow/4000${MODEL}`, { manifest: false }));
  const log = (await requests(WEIGHTS)).filter(({ method }) => method === "GET");
  t.note(arrived, log);
  const first = Number(/bytes=(\d+)/.exec(log[0]?.range ?? "")?.[1]);
  t.ok(first >= 2 * BLOCK, `the second load begins at ${first}, wanted ${2 * BLOCK}`);
  t.ok(bytesOf(log) <= (await bytes(MODEL + WEIGHTS)).length - 2 * BLOCK, "no block that was here is fetched again");
});

test("loading_from_another_origin", async (t) => {
  const girih = await uncached(t);
  const origin = await secondOrigin();
  await tells(t, await girih.loadModel(`${origin}cors${MODEL}`));
  // Without Access-Control-Expose-Headers a page sees neither Content-Range nor ETag.
  await tells(t, await girih.loadModel(`${origin}cors-unexposed${MODEL}`, { manifest: false }));
});

test("loading_whole_files_by_their_hash", async (t) => {
  const { girih } = await withEmptyCache(t);
  const weights = await sha256(await bytes(MODEL + WEIGHTS));
  const events: ProgressEvent[] = [];
  const options = { manifest: false as const, integrity: { [WEIGHTS]: `sha256-${weights}` }, onProgress: (event: ProgressEvent) => events.push(event) };
  await tells(t, await girih.loadModel(MODEL, options));
  const last = events.filter(({ stage }) => stage === "verify").at(-1);
  t.ok(last?.stage === "verify" && last.done === last.total && last.total > 11e6, `verified: ${JSON.stringify(last)}`);
  await tells(t, await girih.loadModel(MODEL, { manifest: await manifestOf(null) }));
});

test("loading_files_of_the_user", async (t) => {
  const girih = await uncached(t);
  const files = await Promise.all(FILES.map((name) => file(MODEL + name)));
  const requests = await watchRequests();
  await tells(t, await girih.loadModel(files));
  // As <input webkitdirectory> gives them: with the folder, and with what else lies there.
  const inFolder = files.map((f) => {
    const named = new File([f], f.name);
    Object.defineProperty(named, "webkitRelativePath", { value: `chosen/fable/${f.name}` });
    return named;
  });
  const stray = new File(["{}"], "config.json");
  Object.defineProperty(stray, "webkitRelativePath", { value: "chosen/fable/deeper/config.json" });
  const model = await girih.loadModel([stray, ...inFolder]);
  await tells(t, model);
  const transfer = new DataTransfer();
  for (const f of files) transfer.items.add(f);
  await tells(t, await girih.loadModel(transfer.files));
  t.equal((await requests()).filter(({ path }) => path.startsWith(MODEL)), [], "requests");
  const weights = await sha256(await bytes(MODEL + WEIGHTS));
  await girih.loadModel(files, { integrity: { [WEIGHTS]: `sha256-${weights}` } });
  await t.rejects(girih.loadModel(files, { integrity: { [WEIGHTS]: `sha256-${"0".repeat(64)}` } }), "integrity");
});

test("loading_a_folder_handle", async (t) => {
  const girih = await uncached(t);
  const root = await navigator.storage.getDirectory();
  t.after(() => root.removeEntry("dropped", { recursive: true }));
  const folder = await root.getDirectoryHandle("dropped", { create: true });
  for (const name of FILES) {
    const writable = await (await folder.getFileHandle(name, { create: true })).createWritable();
    await writable.write(await bytes(MODEL + name));
    await writable.close();
  }
  await tells(t, await girih.loadModel(folder));
});

test("loading_one_gguf_file", async (t) => {
  const girih = await uncached(t);
  // The golden container holds four tensors and no tokenizer: it is read, and found not to be a model.
  const tiny = "/goldens/ops/tiny.gguf";
  const requests = await watchRequests();
  const ofFile = await t.rejects(girih.loadModel(await file(tiny)), "malformed-model");
  const ofUrl = await t.rejects(girih.loadModel(tiny), "malformed-model");
  t.equal(ofUrl.message, ofFile.message, "the message");
  t.ok((await requests("tiny.gguf")).some(({ status }) => status === 206), "it was fetched");
});

test("loading_takes_a_token_and_a_query", async (t) => {
  const girih = await engine(t);
  const requests = await watchRequests();
  await t.rejects(girih.loadModel("/fault/status/401/models/x/?token=abc", { headers: { Authorization: "Bearer t" } }), "network", /401.*headers/);
  t.ok((await requests("/fault/status/401")).length > 0, "the server was asked");
});
