// Mixtures with fewer experts on the device than they have.
import type { ModelSource } from "./package.js";
import { test, type Test } from "./registry.js";
import { MIXTURE, MODEL, PROMPT, bytes, bytesOf, golden, watchRequests } from "./server.js";
import { uncached, withEmptyCache } from "./setup.js";

/** Bytes of one expert of the mixture, and of all 32: 3 matrices of 192 x 256 in bf16. */
const ONE = 3 * 192 * 256 * 2;
const ALL = 32 * ONE;
const TOKENS = 24;

async function story(): Promise<number[]> {
  const found = (await golden("fable-moe")).greedy.find(({ prompt }) => prompt === PROMPT);
  if (found === undefined) throw new Error(`no golden story begins with "${PROMPT}"`);
  return found.new_token_ids.slice(0, TOKENS);
}

/** The files of the mixture as a source of the page, which counts what is read and fails when it is told to. */
async function source(): Promise<{ source: ModelSource; told: { reads: number; failure: Error | null } }> {
  const names = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
  const held = new Map(await Promise.all(names.map(async (name): Promise<[string, Uint8Array]> => [name, await bytes(MIXTURE + name)])));
  const told: { reads: number; failure: Error | null } = { reads: 0, failure: null };
  return {
    told,
    source: {
      size: async (file) => held.get(file)?.length ?? null,
      read: async (file, start, end) => {
        told.reads++;
        if (told.failure !== null) throw told.failure;
        return (held.get(file) ?? new Uint8Array()).slice(start, end);
      },
    },
  };
}

test("experts_beyond_their_memory_tell_the_same_story", async (t: Test) => {
  const girih = await uncached(t);
  const wanted = await story();
  const whole = await girih.loadModel(MIXTURE);
  for (const [expertMemory, options] of [[ALL / 4, {}], [ONE, { expertEviction: "lfu" }], [ALL / 4, { expertPrefetch: "gate" }]] as const) {
    const model = await girih.loadModel(MIXTURE, { expertMemory, ...options });
    t.equal(model.info.weightBytes, whole.info.weightBytes - ALL + expertMemory, "bytes on the device");
    const { tokenIds, experts, pipelinesCreated } = await model.generate(PROMPT, { temperature: 0, maxTokens: TOKENS }).result;
    t.note(expertMemory, options, experts);
    t.equal([...tokenIds], wanted, `tokens with ${expertMemory} bytes of experts`);
    t.equal(pipelinesCreated, 0, "pipelines made after loading");
    const { hits = 0, misses = 0, bytes: moved = 0 } = experts ?? {};
    t.ok(misses > 0 && moved >= misses * ONE, `${misses} experts read, ${moved} bytes`);
    if (expertMemory === ONE) t.ok(hits < misses, `${hits} hits of a single place`);
    if (!("expertPrefetch" in options)) t.equal(moved, misses * ONE, "bytes of what was read");
    await model.dispose();
  }
  const { experts } = await whole.generate(PROMPT, { temperature: 0, maxTokens: 2 }).result;
  t.equal(experts, null, "what reading costs where all experts are there");
});

test("experts_are_read_from_a_source_of_the_page_as_long_as_the_model_lives", async (t: Test) => {
  const girih = await uncached(t);
  const wanted = await story();
  const { source: from, told } = await source();
  const loading = new AbortController();
  const model = await girih.loadModel(from, { expertMemory: 2 * ONE, signal: loading.signal });
  loading.abort(); // the load is over
  const before = told.reads;
  const generate = () => model.generate(PROMPT, { temperature: 0, maxTokens: TOKENS }).result;
  t.equal([...(await generate()).tokenIds], wanted, "tokens");
  t.ok(told.reads > before, "experts were read after the load");
  told.failure = new Error("the disk is gone");
  await t.rejects(generate(), "malformed-model", /layer \d+.*expert \d+.*the disk is gone/);
  told.failure = null;
  t.equal([...(await generate()).tokenIds], wanted, "tokens after a failure");
  const reads = told.reads;
  await model.dispose();
  await t.rejects(generate(), "disposed");
  t.equal(told.reads, reads, "reads after the model is gone");
});

test("experts_that_were_chosen_are_not_downloaded_twice", async (t: Test) => {
  const { girih } = await withEmptyCache(t);
  const requests = await watchRequests();
  const model = await girih.loadModel(MIXTURE, { expertMemory: ONE });
  const loaded = bytesOf(await requests("/model.safetensors"));
  await model.generate(PROMPT, { temperature: 0, maxTokens: 4 }).result;
  const read = bytesOf(await requests("/model.safetensors"));
  t.note(loaded, "bytes of weights with the load,", read, "with four tokens");
  t.equal((await girih.cache.list()).map(({ complete }) => complete), [false], "complete in the cache");
  await model.dispose();
  // What was chosen lies in the cache.
  const again = await watchRequests();
  const second = await girih.loadModel(MIXTURE, { expertMemory: ONE });
  await second.generate(PROMPT, { temperature: 0, maxTokens: 4 }).result;
  t.equal(bytesOf((await again("/model.safetensors")).filter(({ range }) => range !== null)), 0, "bytes that came a second time");
});

test("experts_without_room_and_models_without_experts_are_refused", async (t: Test) => {
  const girih = await uncached(t);
  await t.rejects(girih.loadModel(MIXTURE, { expertMemory: ONE - 1 }), "bad-argument", new RegExp(`${ONE - 1} bytes, must be at least ${ONE}`));
  await t.rejects(girih.loadModel(MODEL, { expertMemory: ALL }), "bad-argument", /no experts/);
  await t.rejects(girih.loadModel(MIXTURE, { expertMemory: "1M" as never }), "bad-argument", /expertMemory is "1M", must be a number of bytes/);
  await t.rejects(girih.loadModel(MIXTURE, { expertPrefetch: "gate" }), "bad-argument", /with expertMemory/);
  await t.rejects(girih.loadModel(MIXTURE, { expertMemory: ALL, expertEviction: "fifo" as never }), "bad-argument", /must be lru or lfu/);
});
