// Messages between page and worker, with a made-up engine.
import { Girih, GirihError, type LostEvent, type Model, type ModelSource, type Notice } from "./package.js";
import { test, type Test } from "./registry.js";
import { fake, sleep, until } from "./setup.js";

/** A source that lives in the page. */
function source(size = 3 << 20): ModelSource & { reads: [number, number][] } {
  const reads: [number, number][] = [];
  return {
    reads,
    size: async (file) => (file === "model.bin" ? size : null),
    read: async (_, start, end) => {
      reads.push([start, end]);
      return new Uint8Array(end - start);
    },
  };
}

async function fakeModel(t: Test): Promise<{ girih: Girih; model: Model }> {
  const girih = await fake(t);
  return { girih, model: await girih.loadModel(source()) };
}

test("protocol_a_source_of_the_page_is_read_by_the_worker", async (t) => {
  const girih = await fake(t);
  const from = source(2_500_000);
  const events: string[] = [];
  const model = await girih.loadModel(from, { onProgress: ({ stage }) => events.push(stage) });
  t.equal(from.reads, [[0, 1048576], [1048576, 2097152], [2097152, 2500000]], "reads");
  t.equal(model.info.weightBytes, 2_500_000, "bytes");
  t.equal(events, ["weights", "weights", "weights", "ready"], "events");
});

test("protocol_what_a_source_throws_is_what_the_load_rejects_with", async (t) => {
  const girih = await fake(t);
  const broken: ModelSource = { ...source(), read: () => Promise.reject(new Error("the disk is on fire")) };
  await t.rejects(girih.loadModel(broken), "internal", /the disk is on fire/);
  const coded: ModelSource = { ...source(), read: () => Promise.reject(new GirihError("network", "unplugged")) };
  await t.rejects(girih.loadModel(coded), "network", /unplugged/);
  await t.rejects(girih.loadModel({ ...source(), size: async () => null }), "not-found");
  await girih.loadModel(source()); // the engine works on
});

test("protocol_pieces_that_nobody_reads_are_joined", async (t) => {
  const { model } = await fakeModel(t);
  const generation = model.generate("w", { maxTokens: 100 });
  const result = await generation.result;
  const pieces: string[] = [];
  for await (const piece of generation) pieces.push(piece);
  t.equal(pieces, [result.text], "pieces read late");
  t.ok(result.tokenIds instanceof Uint32Array && result.tokenIds.length === 100, "token ids are a Uint32Array");
});

test("protocol_a_generation_is_iterated_over_once", async (t) => {
  const { model } = await fakeModel(t);
  const generation = model.generate("w");
  for await (const _ of generation) void _;
  const again = await t.thrown((async () => {
    for await (const _ of generation) void _;
  })());
  t.ok(again instanceof TypeError, `a TypeError, not ${String(again)}`);
});

test("protocol_errors_of_the_engine_keep_their_code", async (t) => {
  const { model } = await fakeModel(t);
  const generation = model.generate("fail");
  await t.rejects((async () => {
    for await (const _ of generation) void _;
  })(), "prompt-too-long", /found 5/);
  await t.rejects(generation.result, "prompt-too-long");
  t.equal((await model.generate("w", { maxTokens: 2 }).result).text, "w0 w1 ", "the next one");
});

test("protocol_arguments_that_make_no_sense_are_refused", async (t) => {
  const { girih, model } = await fakeModel(t);
  const anything = girih.loadModel as (input: unknown) => Promise<Model>;
  await t.rejects(anything.call(girih, 5), "bad-argument", /a model is/);
  await t.rejects(anything.call(girih, { size: 1 }), "bad-argument");
  await t.rejects(girih.loadModel([]), "bad-argument", /no files/);
  await t.rejects(girih.loadModel("http://"), "bad-argument", /not a URL/);
  await t.rejects(girih.loadModel("/x/", { integrity: { a: "md5-1" } }), "bad-argument", /integrity of a/);
  await t.rejects(model.generate([1, -2]).result, "bad-argument", /-2 is not a token id/);
  await t.rejects(model.generate("w", { logitBias: (() => 1) as never }).result, "bad-argument", /cannot be sent/);
  await t.rejects(Girih.create({ device: {} as GPUDevice, worker: true }), "bad-argument", /cannot be sent to a worker/);
});

test("protocol_one_model_takes_turns_and_two_do_not_wait", async (t) => {
  const { girih, model } = await fakeModel(t);
  const order: string[] = [];
  const write = async (which: Model, name: string, maxTokens: number) => {
    for await (const _ of which.generate(name, { maxTokens })) if (order.at(-1) !== name) order.push(name);
  };
  await Promise.all([write(model, "a", 20), write(model, "b", 20), model.embed("x"), write(model, "c", 20)]);
  t.equal(order, ["a", "b", "c"], "in order on one model");
  // Neither ends by itself, so a word of each in turn comes only if both write. (Two that end may each come as one piece
  // to a page that was busy: nothing says how many words a piece has.)
  const other = await girih.loadModel(source());
  const endless = (which: Model) => which.generate("w", { maxTokens: 1e9 })[Symbol.asyncIterator]();
  const both = [endless(model), endless(other)];
  for (const words of [...both, ...both]) t.ok((await words.next()).done === false, "a word while the other writes");
  for (const words of both) await words.return?.();
});

test("protocol_cancelling_before_and_while_waiting", async (t) => {
  const { model } = await fakeModel(t);
  const reason = new Error("no");
  t.equal(await t.thrown(model.generate("a", { signal: AbortSignal.abort(reason) }).result), reason, "before");
  const first = model.generate("a", { maxTokens: 1e9 });
  const waiting = new AbortController();
  const second = model.generate("b", { signal: waiting.signal });
  await sleep(20);
  waiting.abort(reason);
  t.equal(await t.thrown(second.result), reason, "while waiting");
  const third = model.generate("c", { maxTokens: 1 });
  const left = [model.generate("d"), model.generate("e")];
  for (const generation of left) await generation[Symbol.asyncIterator]().return?.();
  for await (const _ of first) break;
  for (const generation of left) t.equal((await generation.result).finish, "cancelled", "left before its turn");
  t.equal((await first.result).finish, "cancelled", "after break");
  t.equal((await third.result).text, "c0 ", "the next in turn");
});

test("protocol_a_panic_ends_the_engine_until_it_is_rebuilt", async (t) => {
  const lost: LostEvent[] = [];
  const girih = await fake(t, { onLost: (event) => lost.push(event) });
  const model = await girih.loadModel(source());
  const running = model.embed("a").then(() => model.generate("a", { maxTokens: 1e9 }).result);
  const failed = running.catch((thrown: unknown) => thrown);
  const other = await girih.loadModel(source());
  await t.rejects(other.generate("panic").result, "internal", /panicked at 'made up'/);
  const error = await failed;
  t.ok(error instanceof GirihError && error.code === "internal", `what ran is rejected, with ${String(error)}`);
  await t.rejects(model.embed("a"), "internal", /panicked/);
  t.equal(lost, [{ reason: "panic", message: "panicked at 'made up'" }], "events");
  t.ok(girih.lost, "lost is true");
  await girih.rebuild();
  t.ok(!girih.lost, "lost is false");
  t.equal((await model.generate("w", { maxTokens: 1 }).result).text, "w0 ", "the same object after the rebuild");
  t.equal((await other.generate("v", { maxTokens: 1 }).result).text, "v0 ", "the other one too");
});

test("protocol_a_worker_that_dies_rejects_everything", async (t) => {
  const lost: LostEvent[] = [];
  const girih = await fake(t, { workerUrl: new URL("./dying_worker.js", import.meta.url), onLost: (event) => lost.push(event) });
  const model = await girih.loadModel(source());
  const generation = model.generate("w", { maxTokens: 1e9 });
  await t.rejects(generation.result, "internal", /worker ended.*killed by the test/);
  await t.rejects(model.tokenize("a"), "internal");
  t.equal(lost.length, 1, "events");
});

test("protocol_a_worker_that_is_not_there_says_so", async (t) => {
  await t.rejects(Girih.create({ workerUrl: "/tests/nothing.js" }), "internal", /could not be started from .*nothing\.js.*worker-src/);
});

test("protocol_a_lost_device_rejects_what_runs", async (t) => {
  const lost: LostEvent[] = [];
  const girih = await fake(t, { onLost: (event) => lost.push(event) });
  const model = await girih.loadModel(source());
  const generation = model.generate("lose", { maxTokens: 1e9 });
  await t.rejects(generation.result, "device-lost", /made up.*rebuild/);
  await t.rejects(girih.stats(), "device-lost");
  await t.rejects(girih.loadModel(source()), "device-lost");
  t.equal(lost, [{ reason: "unknown", message: "made up" }], "events");
  t.equal(await girih.cache.list(), [], "the cache answers without a device");
  await girih.rebuild();
  await model.embed("a");
});

test("protocol_disposing_rejects_what_runs_and_is_idempotent", async (t) => {
  const { girih, model } = await fakeModel(t);
  const generation = model.generate("w", { maxTokens: 1e9 });
  const loading = girih.loadModel({ ...source(), read: () => new Promise(() => undefined) });
  const outcomes = [generation.result, loading].map((promise) => t.rejects(promise, "disposed"));
  await sleep(10);
  await Promise.all([girih.dispose(), girih.dispose(), girih.dispose()]);
  await Promise.all(outcomes);
  await t.rejects(girih.stats(), "disposed");
  await t.rejects(girih.rebuild(), "disposed");
  await t.rejects(girih.cache.list(), "disposed");
  await t.rejects(model.generate("w").result, "disposed");
  await model.dispose();
});

test("protocol_disposing_a_model_leaves_the_others", async (t) => {
  const { girih, model } = await fakeModel(t);
  const other = await girih.loadModel(source());
  const generation = model.generate("w", { maxTokens: 1e9 });
  await sleep(10);
  const outcome = t.rejects(generation.result, "disposed", /model was disposed/);
  await Promise.all([model.dispose(), model.dispose()]);
  await outcome;
  await t.rejects(model.embed("a"), "disposed");
  t.equal((await other.generate("v", { maxTokens: 1 }).result).text, "v0 ", "the other");
  t.equal((await girih.stats()).models, 1, "models");
});

test("protocol_a_load_that_is_aborted_leaves_nothing", async (t) => {
  const girih = await fake(t);
  const reason = new Error("never mind");
  t.equal(await t.thrown(girih.loadModel(source(), { signal: AbortSignal.abort(reason) })), reason, "before");
  const controller = new AbortController();
  const from = source(64 << 20);
  const loading = girih.loadModel({ ...from, read: async (file, start, end) => {
    if (start > 5 << 20) controller.abort(reason);
    return from.read(file, start, end);
  } }, { signal: controller.signal });
  t.equal(await t.thrown(loading), reason, "during");
  await sleep(100);
  const reads = from.reads.length;
  t.ok(reads < 12, `${reads} reads: the load went on after it was aborted`);
  await girih.loadModel(source());
  t.equal((await girih.stats()).models, 1, "models");
  t.equal(await t.thrown(Girih.create({ signal: AbortSignal.abort(reason) })), reason, "create");
});

test("protocol_the_verdict_of_the_self_test_is_kept_until_shaders_change", async (t) => {
  const notices: Notice[] = [];
  const stages: string[] = [];
  const options = {
    selfTest: true, cache: "opfs" as const,
    onNotice: (notice: Notice) => notices.push(notice), onProgress: ({ stage }: { stage: string }) => stages.push(stage),
  };
  const first = await fake(t, options);
  await first.loadModel(source());
  await first.cache.clear(); // verdicts go with it
  await first.dispose();
  const runs: [string, string[]][] = [["a", ["engine", "self-test"]], ["a", ["engine"]], ["b", ["engine", "self-test"]]];
  for (const [shaders, wanted] of runs) {
    stages.length = notices.length = 0;
    const girih = await fake(t, { ...options, workerUrl: new URL(`./fake_worker.js?shaders=${shaders}`, import.meta.url) });
    await girih.loadModel(source());
    await until("the notices", () => notices.length >= 2);
    t.equal(stages.filter((stage) => wanted.includes(stage) || stage === "self-test"), wanted, "stages");
    t.equal(notices.map(({ code }) => code), ["no-subgroups", "blocked-kernel"], "notices");
    t.ok(/made-up\/kernel/.test(notices[1]?.message ?? ""), "the notice names the kernel");
  }
});

test("protocol_conversion_of_tokens_and_vectors", async (t) => {
  const { model } = await fakeModel(t);
  t.equal(await model.tokenize("ab"), Uint32Array.of(97, 98), "ids");
  t.equal(await model.detokenize([104, 105]), "hi", "text");
  t.equal((await model.embed(["a", "bcd"])).map((v) => [...v]), [[1], [3]], "vectors");
  t.equal((await model.chat([{ role: "user", content: "x" }], { maxTokens: 1 }).result).text, "x0 ", "chat");
});
