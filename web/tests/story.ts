// What the package is for: texts and vectors that agree with independent results.
import type { GenerateOptions } from "./package.js";
import { test } from "./registry.js";
import { MIXTURE, MODEL, PROMPT, bytes, golden } from "./server.js";
import { engine, own, storyTeller, uncached } from "./setup.js";

const GREEDY: GenerateOptions = { temperature: 0 };

test("story_equals_the_golden_token_by_token", async (t) => {
  const story = await storyTeller(t);
  t.note(story.info);
  t.equal(story.info.name, "fable-5m", "name");
  for (const { prompt, prompt_ids, new_token_ids, text } of (await golden()).greedy) {
    const options = { ...GREEDY, maxTokens: new_token_ids.length };
    t.equal([...(await story.tokenize(prompt))], prompt_ids, "ids of the prompt");
    const pieces: string[] = [];
    const generation = story.generate(prompt, options);
    for await (const piece of generation) pieces.push(piece);
    const result = await generation.result;
    t.note(pieces.length, "pieces,", result.tokensPerSecond, "tokens/s,", result.dispatchesPerToken, "dispatches/token");
    t.equal([...result.tokenIds], new_token_ids, "new tokens");
    t.equal(result.text, text, "text");
    t.equal(pieces.join(""), text, "pieces put together");
    t.ok(pieces.every((piece) => piece !== ""), "no piece is empty");
    t.ok(pieces.length > 2, `${pieces.length} pieces: the text did not come piece by piece`);
    t.equal(result.finish, "length", "finish");
    t.equal(result.promptTokens, prompt_ids.length, "prompt tokens");
    t.equal(result.pipelinesCreated, 0, "pipelines made after loading");
    t.equal([...(await story.generate(prompt_ids, options).result).tokenIds], new_token_ids, "new tokens, from ids");
    t.equal((await story.detokenize(result.tokenIds)).trim(), text.trim(), "text of the tokens");
  }
});

test("story_from_a_conversation_equals_the_golden", async (t) => {
  const story = await storyTeller(t);
  const { messages, prompt_ids, new_token_ids, text } = (await golden()).chat_greedy;
  const generation = story.chat(messages, { ...GREEDY, maxTokens: new_token_ids.length });
  let told = "";
  for await (const piece of generation) told += piece;
  const result = await generation.result;
  t.equal(result.promptTokens, prompt_ids.length, "prompt tokens");
  t.equal([...result.tokenIds], new_token_ids.slice(0, result.tokenIds.length), "new tokens");
  t.ok(result.finish === "stop" || result.tokenIds.length === new_token_ids.length, "it ends where the golden ends");
  t.ok(text.startsWith(told.trimEnd()), `"${told}" begins the golden text`);
  // The next turn begins with what the cache holds already.
  const next = await story.chat([...messages, { role: "assistant", content: told }, { role: "user", content: "More." }], { maxTokens: 2 }).result;
  t.note(next.cachedTokens, "of", next.promptTokens, "prompt tokens were cached");
  t.ok(next.cachedTokens > 0, "the second turn uses the cache of the first");
});

test("story_from_a_conversation_in_a_template_of_the_page", async (t) => {
  const girih = await uncached(t);
  const model = await girih.loadModel(MODEL, { chatTemplate: "{{ bos_token + messages[0].content }}" });
  t.ok(model.info.hasChatTemplate, "it has a template");
  const story = (await golden()).greedy.find(({ prompt }) => prompt === PROMPT);
  if (story === undefined) throw new Error(`no golden story begins with "${PROMPT}"`);
  const { promptTokens, text } = await model.chat([{ role: "user", content: PROMPT }], { ...GREEDY, maxTokens: 8 }).result;
  t.equal(promptTokens, story.prompt_ids.length, "prompt tokens");
  t.ok(story.text.startsWith(text) && text !== "", `"${text}" begins the golden text`);
});

test("sampling_is_reproducible_by_its_seed", async (t) => {
  const story = await storyTeller(t);
  const sample = async (seed: number) =>
    (await story.generate(PROMPT, { temperature: 0.9, topP: 0.95, topK: 50, seed, maxTokens: 40 }).result).text;
  const [first, again, other] = [await sample(7), await sample(7), await sample(8)];
  t.note(first);
  t.equal(again, first, "the same seed");
  t.ok(other !== first, "another seed gives another text");
});

test("options_of_sampling_reach_the_sampler", async (t) => {
  const story = await storyTeller(t);
  const { new_token_ids } = (await golden()).greedy[0] ?? { new_token_ids: [] };
  const first = new_token_ids[0] ?? 0;
  const banned = await story.generate(PROMPT, { ...GREEDY, maxTokens: 1, logitBias: { [first]: -100 } }).result;
  t.ok(banned.tokenIds[0] !== first, "a token with a bias of -100 is not taken");
  const one = await story.generate(PROMPT, { temperature: 2, topK: 1, maxTokens: 20 }).result;
  t.equal([...one.tokenIds], new_token_ids.slice(0, 20), "top-k 1 is greedy at any temperature");
  await t.rejects(story.generate(PROMPT, { temperature: "hot" as never }).result, "bad-argument", /temperature/);
  await t.rejects(story.generate(PROMPT, { maxTokens: 1.5 }).result, "bad-argument", /maxTokens/);
});

test("stop_strings_end_the_text_before_them", async (t) => {
  const story = await storyTeller(t);
  const whole = (await story.generate(PROMPT, { ...GREEDY, maxTokens: 60 }).result).text;
  const stop = whole.slice(40, 47);
  const generation = story.generate(PROMPT, { ...GREEDY, maxTokens: 60, stop: [stop] });
  let told = "";
  for await (const piece of generation) told += piece;
  const { text, finish } = await generation.result;
  t.equal(text, whole.slice(0, whole.indexOf(stop)), "text");
  t.equal(told, text, "pieces put together");
  t.equal(finish, "stop", "finish");
});

test("no_pipeline_is_made_after_loading_whatever_the_length_of_the_prompt", async (t) => {
  const story = await storyTeller(t);
  const text = (await golden()).greedy[0]?.text ?? "";
  const ids = await story.tokenize(text.repeat(4));
  for (const length of [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 128, 129, 200, 256]) {
    const options = length % 2 === 0 ? GREEDY : { temperature: 1, topK: 20 };
    const result = await story.generate(ids.slice(0, length), { ...options, maxTokens: 3 }).result;
    t.equal(result.pipelinesCreated, 0, `pipelines made for a prompt of ${length} tokens`);
  }
});

test("a_prompt_beyond_the_context_is_an_error_and_a_full_one_ends", async (t) => {
  const girih = await engine(t);
  const small = await girih.loadModel(MODEL, { context: 32 });
  t.equal(small.info.context, 32, "context");
  const ids = await small.tokenize(PROMPT.repeat(20));
  await t.rejects(small.generate(ids).result, "prompt-too-long", /32/);
  const full = await small.generate(PROMPT, { ...GREEDY, maxTokens: 100 }).result;
  t.equal(full.finish, "context", "finish");
  t.ok(full.promptTokens + full.tokenIds.length <= 33, `${full.tokenIds.length} new tokens`);
  await t.rejects(girih.loadModel(MODEL, { context: 100_000 }), "bad-argument", /100000/);
});

/** Tensors of f32 of a safetensors file. */
function tensors(file: Uint8Array<ArrayBuffer>): Map<string, Float32Array> {
  const header = Number(new DataView(file.buffer).getBigUint64(0, true));
  const entries = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + header))) as Record<string, { dtype?: string; data_offsets: [number, number] }>;
  const found = new Map<string, Float32Array>();
  for (const [name, { dtype, data_offsets: [start, end] }] of Object.entries(entries)) {
    if (dtype === "F32") found.set(name, new Float32Array(file.slice(8 + header + start, 8 + header + end).buffer));
  }
  return found;
}

test("vectors_of_texts_equal_the_reference", async (t) => {
  const folder = "/goldens/models/bert_mean_pool/";
  const { texts } = (await (await fetch(`${folder}reference.json`)).json()) as { texts: string[] };
  const wanted = tensors(await bytes(`${folder}reference.safetensors`)).get("batch.embedding") ?? new Float32Array();
  const encoder = await (await uncached(t)).loadModel(folder);
  t.ok(encoder.info.isEncoder, "it is an encoder");
  const vectors = await encoder.embed(texts);
  t.equal(vectors.length, texts.length, "vectors");
  let worst = 0;
  vectors.forEach((vector, i) => {
    t.equal(vector.length, 64, "length of a vector");
    vector.forEach((value, j) => (worst = Math.max(worst, Math.abs(value - (wanted[64 * i + j] ?? NaN)))));
  });
  t.note("largest difference", worst);
  t.ok(worst < 1e-4, `largest difference ${worst}, wanted less than 1e-4`);
  const [alone] = await encoder.embed(texts[1] ?? "");
  t.ok(alone !== undefined && alone.every((value, j) => Math.abs(value - (vectors[1]?.[j] ?? NaN)) < 1e-5), "alone as in a batch");
  await t.rejects(encoder.generate("a").result, "bad-argument", /encoder/);
});

test("a_sharded_and_a_quantised_checkpoint_give_the_golden_tokens", async (t) => {
  const girih = await uncached(t);
  for (const name of ["llama_mha_bf16_sharded", "llama_gptq_int4"]) {
    const folder = `/goldens/models/${name}/`;
    const reference = (await (await fetch(`${folder}reference.json`)).json()) as {
      prompts: Record<string, number[]>;
      greedy: { prompt: string; new_tokens: number[] };
    };
    const { prompt, new_tokens } = reference.greedy;
    const tiny = await girih.loadModel(folder);
    const result = await tiny.generate(reference.prompts[prompt] ?? [], { ...GREEDY, maxTokens: new_tokens.length }).result;
    t.equal([...result.tokenIds], new_tokens.slice(0, result.tokenIds.length), `new tokens of ${name}`);
    t.ok(result.tokenIds.length > 0, "there are some");
    await t.rejects(tiny.generate("text").result, "bad-argument", /tokenizer/);
    await tiny.dispose();
  }
});

test("a_mixture_tells_its_story_and_says_where_tokens_went", async (t) => {
  const girih = await uncached(t);
  const model = await girih.loadModel(MIXTURE);
  const story = (await golden("fable-moe")).greedy.find(({ prompt }) => prompt === PROMPT);
  if (story === undefined) throw new Error(`no golden story begins with "${PROMPT}"`);
  const { tokenIds } = await model.generate(PROMPT, { ...GREEDY, maxTokens: 12 }).result;
  t.equal([...tokenIds], story.new_token_ids.slice(0, 12), "new tokens");
  const routing = await model.routing(PROMPT);
  t.equal([...routing.tokenIds], story.prompt_ids, "ids of the text");
  t.equal(routing.layers.map(({ layer, experts }) => [layer, experts]), [[0, 8], [1, 8], [2, 8], [3, 8]], "layers");
  for (const { layer, routes } of routing.layers) {
    t.equal(routes.length, story.prompt_ids.length, `tokens of layer ${layer}`);
    for (const chosen of routes) {
      t.equal(new Set(chosen.map(([expert]) => expert)).size, 2, "two experts, not the same");
      t.ok(chosen.every(([expert]) => Number.isInteger(expert) && expert >= 0 && expert < 8), "experts that there are");
      t.ok(Math.abs(chosen.reduce((sum, [, weight]) => sum + weight, 0) - 1) < 1e-5, "weights sum to 1");
    }
  }
  const taken = new Set(routing.layers.flatMap(({ routes }) => routes.flat().map(([expert]) => expert)));
  t.ok(taken.size > 2, `experts ${[...taken].join(", ")}: tokens go to different ones`);
  const ids = await model.routing(story.prompt_ids);
  t.equal(ids.layers, routing.layers, "the same from token ids");
  await t.rejects(model.routing([4096]), "bad-argument", /4096/);
  await t.rejects(model.routing([]), "bad-argument", /at least one/);
  t.equal((await (await storyTeller(t)).routing(PROMPT)).layers, [], "a dense model has none");
});

test("an_engine_runs_in_a_worker_of_the_page", async (t) => {
  const worker = new Worker(new URL("./own_worker.js", import.meta.url), { type: "module" });
  t.after(() => worker.terminate());
  const told = await new Promise<{ text?: string; error?: string }>((resolve) => {
    worker.onmessage = ({ data }: MessageEvent<{ text?: string; error?: string }>) => resolve(data);
    worker.onerror = ({ message }) => resolve({ error: message });
  });
  t.equal(told.error, undefined, "error");
  t.ok((told.text ?? "") !== "" && ((await golden()).greedy[0]?.text.startsWith(told.text ?? "") ?? false), `"${told.text}" begins the golden text`);
});

test("caps_and_support_say_what_is_there", async (t) => {
  const girih = await uncached(t);
  t.note(girih.caps);
  t.equal(girih.caps.tier, "t4", "tier of SwiftShader, a CPU");
  t.equal(girih.caps.subgroups, [4, 4], "sizes of subgroups");
  t.ok(girih.caps.isCpu, "it is a CPU");
  const low = await own(t, { cache: "none", maxTier: "t0" });
  t.equal(low.caps.tier, "t0", "tier when held down");
});

test("the_self_test_blocks_nothing_here", async (t) => {
  const stages: string[] = [];
  const codes: string[] = [];
  const girih = await own(t, { cache: "none", selfTest: true, onProgress: ({ stage }) => stages.push(stage), onNotice: ({ code }) => codes.push(code) });
  const start = performance.now();
  await girih.loadModel(MODEL, { onProgress: ({ stage }) => stages.push(stage) });
  t.note(`${Math.round(performance.now() - start)} ms`, [...new Set(stages)], codes);
  t.equal(stages[0], "engine", "the first stage");
  t.ok(stages.includes("self-test"), "what the model uses is tested");
  t.equal(codes, [], "notices");
});
