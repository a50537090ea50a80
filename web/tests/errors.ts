// What goes wrong, and what is said about it.
import { Girih, GirihError, type Manifest } from "./package.js";
import { test } from "./registry.js";
import { MODEL, bytes, secondOrigin, sha256, watchRequests } from "./server.js";
import { uncached, withEmptyCache } from "./setup.js";

const WEIGHTS = "model.safetensors";

function source(files: Record<string, string | Uint8Array>) {
  const entries = Object.entries(files).map(([name, data]): [string, Uint8Array] => [name, typeof data === "string" ? new TextEncoder().encode(data) : data]);
  const held = new Map(entries);
  return {
    size: async (file: string) => held.get(file)?.length ?? null,
    read: async (file: string, start: number, end: number) => (held.get(file) ?? new Uint8Array()).slice(start, end),
  };
}

test("errors_404_names_the_file", async (t) => {
  const girih = await uncached(t);
  await t.rejects(girih.loadModel("/models/nothing/"), "not-found", /config\.json.*\/models\/nothing\//);
  await t.rejects(girih.loadModel("/models/nothing.gguf"), "not-found");
});

test("errors_an_option_that_does_not_exist_is_named", async (t) => {
  const wrong = { filtr: "gemv" } as object;
  await t.rejects(Girih.create(wrong), "bad-argument", /Girih\.create: found the option filtr, wanted one of .*maxTier/);
  await t.rejects(Girih.create({ cache: { maxSize: 1 } as object }), "bad-argument", /cache: found the option maxSize, wanted one of maxBytes/);
  await t.rejects(Girih.create("t0" as unknown as object), "bad-argument", /"t0", must be an object/);
  const girih = await uncached(t);
  await t.rejects(girih.bench(wrong), "bad-argument", /bench: found the option filtr, wanted one of kernels, onRow, signal/);
  await t.rejects(girih.rebuild(wrong), "bad-argument", /rebuild/);
  await t.rejects(girih.loadModel(MODEL, { weight: "int8" } as object), "bad-argument", /weight, wanted one of .*weights/);
  await t.rejects(girih.loadModel(MODEL, { keyValues: "int8" } as object), "bad-argument", /keyValues is "int8", must be f32 or f16/);
  await t.rejects(girih.loadModel(MODEL, { chatTemplate: "{% if %}" }), "bad-argument", /chatTemplate: /);
  const model = await girih.loadModel(MODEL, { context: 64, keyValues: "f16" });
  t.equal(model.info.cacheBytes, 64 * 2 * 2 * 6 * 64 * 2, "bytes of an f16 cache: tokens, keys and values, heads, layers, channels");
  for (const generation of [model.generate("a", { max_tokens: 1 } as object), model.chat([{ role: "user", content: "a" }], { stopp: [] } as object)]) {
    await t.rejects(generation.result, "bad-argument", /found the option (max_tokens|stopp), wanted one of maxTokens/);
  }
  await t.rejects(model.embed("a", { name: "query" } as object), "bad-argument", /embed: found the option name/);
  await t.rejects(model.generate("a", { temperatur: 0 } as object)[Symbol.asyncIterator]().next(), "bad-argument");
});

test("errors_500_is_tried_again_and_given_up", async (t) => {
  const girih = await uncached(t);
  const requests = await watchRequests();
  await t.rejects(girih.loadModel(`/fault/status/500${MODEL}`, { manifest: false }), "network", /model\.safetensors.*5 attempts.*500/);
  t.equal((await requests(`/${WEIGHTS}`)).length, 5, "attempts");
});

test("errors_a_truncated_download_says_how_much_came", async (t) => {
  const girih = await uncached(t);
  await t.rejects(girih.loadModel(`/fault/truncate/300${MODEL}`, { manifest: false }), "network", /received \d+ bytes of \d+/);
});

test("errors_of_another_origin_name_the_header", async (t) => {
  const girih = await uncached(t);
  await t.rejects(girih.loadModel((await secondOrigin()) + MODEL.slice(1)), "blocked-by-cors", /Access-Control-Allow-Origin/);
  await t.rejects(girih.loadModel("http://127.0.0.1:9/model/", { manifest: false }), "network", /5 attempts/);
});

test("errors_a_wrong_block_is_found_when_it_arrives", async (t) => {
  const { girih } = await withEmptyCache(t);
  const data = await bytes(MODEL + WEIGHTS);
  const blockSize = 1 << 20;
  const blocks: string[] = [];
  for (let at = 0; at < data.length; at += blockSize) blocks.push(await sha256(data.slice(at, at + blockSize)));
  const small = await Promise.all(["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"].map(async (name) => {
    const held = await bytes(MODEL + name);
    return [name, { size: held.length, sha256: await sha256(held) }] as const;
  }));
  const manifest: Manifest = {
    version: 1,
    files: { ...Object.fromEntries(small), [WEIGHTS]: { size: data.length, sha256: await sha256(data), blockSize, blocks } },
  };
  const at = 5 * blockSize + 17;
  const broken = `/fault/corrupt/${at}${MODEL}`;
  await t.rejects(girih.loadModel(broken, { manifest }), "integrity", /model\.safetensors, block 5 .*sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}/);
  // The right one, after the wrong one.
  await girih.loadModel(MODEL, { manifest });
  const shorter: Manifest = { version: 1, files: { ...manifest.files, "config.json": { size: 5, sha256: "0".repeat(64) } } };
  await t.rejects(girih.loadModel(MODEL, { manifest: shorter, cache: "none" }), "integrity", /config\.json.*expected 5/);
});

test("errors_a_wrong_file_is_found_before_the_model_is_handed_out", async (t) => {
  const { girih } = await withEmptyCache(t);
  const before = (await girih.stats()).models;
  const hash = await sha256(await bytes(MODEL + WEIGHTS));
  const broken = `/fault/corrupt/7000001${MODEL}`;
  const options = { manifest: false as const, integrity: { [WEIGHTS]: `sha256-${hash}` } };
  await t.rejects(girih.loadModel(broken, options), "integrity", /model\.safetensors \(\d+ bytes\): sha256 is/);
  const kept = (await girih.cache.list()).find(({ url }) => url.includes("corrupt"));
  t.ok(kept !== undefined && !kept.complete && kept.bytes < 1e6, `the blocks are removed: ${JSON.stringify(kept)}`);
  t.equal((await girih.stats()).models, before, "models");
});

test("errors_manifests_are_checked", async (t) => {
  const girih = await uncached(t);
  const load = (manifest: unknown) => girih.loadModel(MODEL, { manifest: manifest as Manifest });
  await t.rejects(load({ version: 2, files: {} }), "malformed-model", /version is 2/);
  await t.rejects(load({ version: 1 }), "malformed-model", /files/);
  await t.rejects(load({ version: 1, files: { a: { size: -1, sha256: "" } } }), "malformed-model", /a: size is -1/);
  await t.rejects(load({ version: 1, files: { a: { size: 1, sha256: "0".repeat(64), blocks: [] } } }), "malformed-model", /1 hashes/);
  await t.rejects(load({ version: 1, files: {} }), "not-found");
  await t.rejects(girih.loadModel(MODEL, { manifest: `${MODEL}tokenizer_config.json` }), "malformed-model", /version/);
  await t.rejects(girih.loadModel(MODEL, { manifest: "/models/nothing.json" }), "not-found", /nothing\.json/);
});

test("errors_malformed_models", async (t) => {
  const girih = await uncached(t);
  const before = (await girih.stats()).heapBytes;
  const config = new TextDecoder().decode(await bytes(`${MODEL}config.json`));
  await t.rejects(girih.loadModel(source({ "config.json": "{ not json" })), "malformed-model", /config\.json/);
  await t.rejects(girih.loadModel(source({})), "not-found", /config\.json/);
  const absurd = new Uint8Array(64);
  new DataView(absurd.buffer).setBigUint64(0, 1n << 60n, true);
  await t.rejects(girih.loadModel(source({ "config.json": config, [WEIGHTS]: absurd })), "malformed-model", /model\.safetensors/);
  const weights = await bytes(MODEL + WEIGHTS);
  await t.rejects(girih.loadModel(source({ "config.json": config, [WEIGHTS]: weights.slice(0, 100_000) })), "malformed-model");
  const short = { ...source({ "config.json": config }), read: async () => new Uint8Array(3) };
  await t.rejects(girih.loadModel(short), "malformed-model", /config\.json/);
  t.ok((await girih.stats()).heapBytes <= before + (32 << 20), "an absurd length allocates nothing");
});

test("errors_unsupported_models", async (t) => {
  const girih = await uncached(t);
  const config = { architectures: ["NoSuchForCausalLM"], model_type: "no_such" };
  const weights = await bytes(MODEL + WEIGHTS);
  await t.rejects(girih.loadModel(source({ "config.json": JSON.stringify(config), [WEIGHTS]: weights })), "unsupported-model", /no_such/i);
  await t.rejects(girih.loadModel(MODEL, { weights: "int3" }), "bad-argument", /weights is "int3"/);
});

test("errors_names_that_leave_the_folder_are_refused", async (t) => {
  const girih = await uncached(t);
  const index = JSON.stringify({ metadata: {}, weight_map: { a: "../../config.json" } });
  const config = new TextDecoder().decode(await bytes(`${MODEL}config.json`));
  await t.rejects(girih.loadModel(source({ "config.json": config, "model.safetensors.index.json": index })), "malformed-model");
});

test("errors_without_webgpu_say_what_to_do", async (t) => {
  const gpu = Object.getOwnPropertyDescriptor(Navigator.prototype, "gpu");
  if (gpu === undefined) throw new Error("this browser has no navigator.gpu");
  t.after(() => void Object.defineProperty(Navigator.prototype, "gpu", gpu));
  const support = await Girih.support();
  t.ok(support.webgpu && support.subgroups && support.opfs && !support.f16, JSON.stringify(support));
  Object.defineProperty(Navigator.prototype, "gpu", { get: () => undefined, configurable: true });
  await t.rejects(Girih.create(), "no-webgpu", /Chrome, Edge, Firefox or Safari/);
  const without = await Girih.support();
  t.ok(!without.webgpu && /no WebGPU/.test(without.reason ?? ""), JSON.stringify(without));
  const none = { requestAdapter: async () => null };
  Object.defineProperty(Navigator.prototype, "gpu", { get: () => none, configurable: true });
  t.ok(/no adapter/.test((await Girih.support()).reason ?? ""), "no adapter");
});

test("errors_are_of_one_class", async (t) => {
  const error = new GirihError("quota", "full");
  t.ok(error instanceof Error && error.name === "GirihError" && error.code === "quota", String(error));
});

test("errors_a_server_that_hangs_is_left_when_the_caller_aborts", async (t) => {
  const girih = await uncached(t);
  const loading = girih.loadModel(`/fault/hang${MODEL}`, { manifest: false, signal: AbortSignal.timeout(300) });
  const thrown = await t.thrown(loading);
  t.ok(thrown instanceof DOMException && thrown.name === "TimeoutError", String(thrown));
});
