// What is kept, and what happens when there is no room.
import { test } from "./registry.js";
import { MODEL, bytes, watchRequests, bytesOf } from "./server.js";
import { uncached, withEmptyCache } from "./setup.js";

const BERT = "/goldens/models/bert_mean_pool/";

/** A worker whose browser says how much room there is. */
function room(bytes: number): URL {
  return new URL(`./stubbed_worker.js?room=${bytes}`, import.meta.url);
}

test("cache_evicts_the_least_recently_used_model", async (t) => {
  const { girih, notices } = await withEmptyCache(t, { cache: { maxBytes: 12_400_000 } });
  await (await girih.loadModel(BERT)).dispose();
  t.equal((await girih.cache.list()).map(({ url }) => new URL(url).pathname), [BERT], "in the cache");
  await (await girih.loadModel(MODEL, { manifest: false })).dispose();
  t.equal((await girih.cache.list()).map(({ url }) => new URL(url).pathname), [MODEL], "in the cache after the second");
  t.equal(notices.map(({ code }) => code), ["cache-evicted"], "notices");
  t.ok(notices[0]?.message.includes(BERT) ?? false, "the notice names the model");
  const { used, quota } = await girih.cache.usage();
  t.ok(used > 11e6 && used <= quota && quota === 12_400_000, `${used} of ${quota} bytes`);
});

test("cache_that_is_too_small_is_said_once_and_the_model_loads", async (t) => {
  const { girih, notices } = await withEmptyCache(t, { cache: { maxBytes: 1_000_000 } });
  const model = await girih.loadModel(MODEL, { manifest: false });
  t.ok((await model.generate("a", { maxTokens: 1 }).result).tokenIds.length === 1, "it works");
  t.equal(notices.map(({ code }) => code), ["cache-full"], "notices");
  t.ok((await girih.cache.list()).every(({ complete, bytes }) => !complete && bytes <= 1_000_000), "what is kept");
  await t.rejects(girih.loadModel(MODEL, { manifest: false, cache: "require" }), "quota", /no room/);
  await t.rejects(girih.loadModel([new File(["{}"], "config.json")], { cache: "require" }), "quota", /only downloads/);
  const without = await uncached(t);
  await t.rejects(without.loadModel(MODEL, { cache: "require" }), "quota", /no cache/);
});

test("cache_that_is_large_enough_meets_the_demand", async (t) => {
  const { girih, notices } = await withEmptyCache(t);
  await girih.loadModel(MODEL, { manifest: false, cache: "require" });
  t.equal(notices, [], "notices");
  t.equal((await girih.cache.list()).map(({ complete }) => complete), [true], "complete");
});

test("cache_keeps_to_the_quota_of_the_browser", async (t) => {
  // 16 MiB stay free for the page's own data; 6 MB are left for the model.
  const { girih, notices } = await withEmptyCache(t, { workerUrl: room((16 << 20) + 6_000_000) });
  await girih.loadModel(MODEL, { manifest: false });
  t.equal(notices.map(({ code }) => code), ["cache-full"], "notices");
  t.ok(/no room to keep .*fable-5m/.test(notices[0]?.message ?? ""), "the notice names the model");
  const full = await withEmptyCache(t, { workerUrl: room(1 << 20) });
  await t.rejects(full.girih.loadModel(MODEL, { manifest: false, cache: "require" }), "quota");
});

test("cache_survives_a_browser_that_refuses_to_write", async (t) => {
  const url = new URL("./stubbed_worker.js?refuse=2", import.meta.url);
  const { girih, notices } = await withEmptyCache(t, { workerUrl: url });
  const model = await girih.loadModel(MODEL, { manifest: false });
  t.ok((await model.generate("a", { maxTokens: 1 }).result).tokenIds.length === 1, "it works");
  t.equal(notices.map(({ code }) => code), ["cache-full"], "notices");
});

test("cache_entries_can_be_removed", async (t) => {
  const { girih } = await withEmptyCache(t);
  await girih.loadModel(BERT);
  const [entry] = await girih.cache.list();
  t.ok(entry !== undefined && entry.lastUsed.getTime() > Date.now() - 60_000, JSON.stringify(entry));
  await girih.cache.remove(entry?.key ?? "");
  t.equal(await girih.cache.list(), [], "in the cache");
  t.equal((await girih.cache.usage()).used, 0, "bytes");
  const requests = await watchRequests();
  await girih.loadModel(BERT, { cache: "none" });
  t.ok(bytesOf(await requests(BERT)) > 600_000, "it is fetched again");
  t.equal(await girih.cache.list(), [], "in the cache, after a load that keeps nothing");
});

test("cache_works_in_the_thread_of_the_page_too", async (t) => {
  const { girih } = await withEmptyCache(t, { worker: false });
  await (await girih.loadModel(BERT)).dispose();
  const requests = await watchRequests();
  await (await girih.loadModel(BERT)).dispose();
  t.equal(bytesOf((await requests(BERT)).filter(({ method }) => method === "GET" && true)), 0, "bytes of the second load");
});

test("cache_notices_that_a_block_is_damaged_in_size", async (t) => {
  const { girih } = await withEmptyCache(t);
  await (await girih.loadModel(BERT)).dispose();
  // A tab that died while it wrote leaves a short block.
  const [entry] = await girih.cache.list();
  const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("girih");
  const folder = await (await root.getDirectoryHandle("models")).getDirectoryHandle(entry?.key ?? "");
  let cut = 0;
  for await (const item of folder.values()) {
    if (item.kind !== "directory") continue;
    const block = await (item as FileSystemDirectoryHandle).getFileHandle("0").catch(() => null);
    if (block === null) continue;
    const writable = await block.createWritable();
    await writable.write(new Uint8Array(3));
    await writable.close();
    cut++;
  }
  t.ok(cut > 3, `${cut} blocks were cut`);
  await girih.loadModel(BERT);
  t.ok((await bytes(`${BERT}model.safetensors`)).length > 0, "it loads again");
});
