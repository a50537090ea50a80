// Variants of kernels that were measured in the page: what wins, what is kept, what is used.
import { Girih } from "./package.js";
import { test } from "./registry.js";
import { MODEL, golden } from "./server.js";
import { fake, own } from "./setup.js";

const source = { size: async () => 1, read: async () => new Uint8Array(1), list: () => ["model.bin"] };

test("tune_keeps_what_wins_for_the_next_engine", async (t) => {
  const girih = await own(t, { cache: "none" });
  await girih.resetTuning();
  t.equal(girih.caps.tuned, 0, "winners in force");
  const model = await girih.loadModel(MODEL, { context: 64 });
  const told: string[] = [];
  const report = await girih.tune(model, { seconds: 12, onRow: ({ shape }) => told.push(shape) });
  t.after(() => girih.resetTuning());
  t.note(report);
  t.ok(report.rows.length > 0, "no shape was measured in 12 s");
  t.equal(report.rows.map(({ shape }) => shape), told, "rows, as they were told");
  for (const row of report.rows) {
    t.equal(row.wrong, [], `${row.kernel} ${row.shape}: variants that computed something else`);
    t.equal(row.before, row.rule, "in force before");
    t.ok(row.timed > 0 && row.winnerMs > 0 && row.winnerMs <= row.ruleMs, JSON.stringify(row));
  }
  const winners = report.rows.filter(({ winner, rule }) => winner !== rule).length;
  t.equal([report.winners, girih.caps.tuned], [winners, winners], "winners");
  const next = await own(t, { cache: "none" });
  t.equal(next.caps.tuned, winners, "winners in force in the next engine");
  // The model is right with them.
  const story = (await golden()).greedy[0];
  const again = await next.loadModel(MODEL);
  const { tokenIds, pipelinesCreated } = await again.generate(story?.prompt ?? "", { temperature: 0, maxTokens: 12 }).result;
  t.equal([...tokenIds], story?.new_token_ids.slice(0, 12), "new tokens");
  t.equal(pipelinesCreated, 0, "pipelines made after loading");
  const [first] = report.rows;
  const [measured] = (await next.tune(again, { seconds: 10 })).rows; // the first shape is enough
  t.equal([measured?.shape, measured?.before], [first?.shape, first?.winner], "what the next engine had in force");
  await next.resetTuning();
  t.equal((await own(t, { cache: "none" })).caps.tuned, 0, "winners after they were forgotten");
});

test("tune_says_what_it_needs", async (t) => {
  const girih = await fake(t);
  await t.rejects(girih.tune(), "bad-argument", /no model is loaded/);
  const model = await girih.loadModel(source);
  await t.rejects(girih.tune(model, { seconds: -1 }), "bad-argument", /seconds is -1/);
  await t.rejects(girih.tune(model, { second: 1 } as object), "bad-argument", /found the option second, wanted one of seconds, onRow, signal/);
  const { left, rows } = await girih.tune(model, { seconds: 0 });
  t.equal([left.length, rows.length], [1, 0], "shapes left and measured without time");
  await model.dispose();
  await t.rejects(girih.tune(model), "disposed");
  const reason = new Error("enough");
  t.equal(await t.thrown(girih.tune(await girih.loadModel(source), { signal: AbortSignal.abort(reason) })), reason, "aborted");
});

test("tune_winners_are_kept_until_shaders_change", async (t) => {
  const start = async (shaders: string): Promise<Girih> => {
    const girih = await fake(t, { workerUrl: new URL(`./fake_worker.js?shaders=${shaders}`, import.meta.url) });
    await girih.loadModel(source);
    return girih;
  };
  const before = async (girih: Girih) => (await girih.tune()).rows.map(({ before }) => before);
  const first = await start("a");
  await first.resetTuning();
  t.equal([await before(first), first.caps.tuned], [["usual"], 1], "the first time");
  t.equal((await start("a")).caps.tuned, 1, "winners of another engine");
  t.equal(await before(await start("a")), ["quick"], "what is kept is used");
  const other = await start("b");
  t.equal([other.caps.tuned, await before(other)], [0, ["usual"]], "with other shaders");
  await other.resetTuning();
  await first.resetTuning();
  t.equal((await start("a")).caps.tuned, 0, "forgotten");
});
