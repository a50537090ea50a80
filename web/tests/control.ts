// Cancelling, turns, and what the thread of the page notices.
import type { Generation, Model } from "./package.js";
import { test, type Test } from "./registry.js";
import { MODEL, PROMPT, golden } from "./server.js";
import { engine, own, storyTeller } from "./setup.js";

async function told(generation: Generation): Promise<string> {
  let text = "";
  for await (const piece of generation) text += piece;
  return text;
}

/** That a model works as before. */
async function works(t: Test, story: Model): Promise<void> {
  const wanted = (await golden()).greedy[0]?.new_token_ids.slice(0, 12) ?? [];
  const result = await story.generate(PROMPT, { temperature: 0, maxTokens: 12 }).result;
  t.equal([...result.tokenIds], wanted, "tokens afterwards");
}

test("cancelling_before_the_start", async (t) => {
  const story = await storyTeller(t);
  const reason = new Error("changed my mind");
  const generation = story.generate(PROMPT, { signal: AbortSignal.abort(reason) });
  t.equal(await t.thrown(generation.result), reason, "the result");
  t.equal(await t.thrown(told(generation)), reason, "the iterator");
  const byDefault = await t.thrown(story.generate(PROMPT, { signal: AbortSignal.abort() }).result);
  t.ok(byDefault instanceof DOMException && byDefault.name === "AbortError", String(byDefault));
  await works(t, story);
});

test("cancelling_in_a_long_prompt", async (t) => {
  const story = await storyTeller(t);
  const text = (await golden()).greedy[0]?.text ?? "";
  const ids = (await story.tokenize(text.repeat(8))).slice(0, 500);
  const whole = await story.generate(ids, { temperature: 0, maxTokens: 1 }).result;
  t.note("the prompt alone takes", whole.prefillSeconds, "s");
  await works(t, story); // puts another text into the cache
  const controller = new AbortController();
  const generation = story.generate(ids, { temperature: 0, maxTokens: 1, signal: controller.signal });
  const start = performance.now();
  setTimeout(() => controller.abort(), 20);
  const thrown = await t.thrown(generation.result);
  t.ok(thrown instanceof DOMException && thrown.name === "AbortError", String(thrown));
  const rejected = performance.now() - start;
  await works(t, story);
  t.note("rejected after", rejected, "ms, free after", performance.now() - start, "ms");
  t.ok(rejected < 1000, `rejected after ${rejected} ms`);
});

test("cancelling_while_it_writes", async (t) => {
  const story = await storyTeller(t);
  const controller = new AbortController();
  const generation = story.generate(PROMPT, { temperature: 0, maxTokens: 400, signal: controller.signal });
  let text = "";
  const thrown = await t.thrown((async () => {
    for await (const piece of generation) {
      text += piece;
      if (text.length > 20) controller.abort("enough");
    }
  })());
  t.equal(thrown, "enough", "the iterator throws the reason");
  t.equal(await t.thrown(generation.result), "enough", "so does the result");
  await works(t, story);
  controller.abort("after the end: nothing happens");
});

test("cancelling_by_break", async (t) => {
  const story = await storyTeller(t);
  const generation = story.generate(PROMPT, { temperature: 0, maxTokens: 400 });
  let text = "";
  for await (const piece of generation) {
    text += piece;
    if (text.length > 20) break;
  }
  const result = await generation.result;
  t.equal(result.finish, "cancelled", "finish");
  t.ok(result.text.startsWith(text) && result.tokenIds.length < 400, `${result.tokenIds.length} tokens`);
  const wanted = (await golden()).greedy[0]?.new_token_ids ?? [];
  t.equal([...result.tokenIds.slice(0, 5)], wanted.slice(0, 5), "the tokens so far");
  await works(t, story);
  // Nobody looks at the result of this one; that must not be an unhandled rejection.
  const ignored = new AbortController();
  story.generate(PROMPT, { maxTokens: 400, signal: ignored.signal });
  ignored.abort();
  await works(t, story);
});

test("one_model_takes_turns", async (t) => {
  const story = await storyTeller(t);
  const wanted = (await golden()).greedy.slice(0, 3);
  const generations = wanted.map(({ prompt }) => story.generate(prompt, { temperature: 0, maxTokens: 10 }));
  const results = await Promise.all(generations.map(({ result }) => result));
  results.forEach(({ tokenIds }, i) => t.equal([...tokenIds], wanted[i]?.new_token_ids.slice(0, 10) ?? [], `tokens of text ${i}`));
});

test("two_models_write_at_the_same_time", async (t) => {
  const girih = await engine(t);
  const [first, second] = [await girih.loadModel(MODEL), await girih.loadModel(MODEL, { context: 128 })];
  const wanted = (await golden()).greedy[0]?.new_token_ids.slice(0, 40) ?? [];
  const order: string[] = [];
  const write = async (story: Model, name: string) => {
    const generation = story.generate(PROMPT, { temperature: 0, maxTokens: 40 });
    for await (const _ of generation) order.push(name);
    t.equal([...(await generation.result).tokenIds], wanted, `tokens of ${name}`);
  };
  await Promise.all([write(first, "a"), write(second, "b")]);
  t.note(order.join(""));
  const changes = order.filter((name, i) => i > 0 && name !== order[i - 1]).length;
  t.ok(changes >= 2, "the pieces of both come in between each other");
  await first.dispose();
  await works(t, second);
});

test("the_thread_of_the_page_is_not_held", async (t) => {
  // The clock also counts the time that the machine gives to others. What holds the thread does so every time.
  const times: number[] = [];
  while (times.length < 5 && !times.some((time) => time <= 8)) times.push(await longestTask(t));
  t.ok(times.some((time) => time > 0 && time <= 8), `messages held the thread for ${times.join(", ")} ms, wanted at most 8`);
});

/** The longest time, in ms, for which a message of the package held this thread while a model loaded and wrote. */
async function longestTask(t: Test): Promise<number> {
  const girih = await own(t);
  // A tick of a channel comes as soon as the thread is free.
  const { port1, port2 } = new MessageChannel();
  let last = performance.now();
  let longest = 0;
  let running = true;
  port1.onmessage = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    if (running) port2.postMessage(null);
  };
  port2.postMessage(null);
  const story = await girih.loadModel(MODEL);
  const loading = longest;
  longest = 0;
  await story.generate(PROMPT, { maxTokens: 100 }).result;
  running = false;
  port1.close();
  const { longestTaskMs } = await girih.stats();
  t.note(`longest gap between ticks: ${loading} ms while loading, ${longest} ms while writing; ours: ${longestTaskMs} ms`);
  await girih.dispose();
  return longestTaskMs;
}

test("a_hidden_tab_goes_on_writing", async (t) => {
  const story = await storyTeller(t);
  // What a hidden tab loses: frames stop, and timers run once a second or less.
  const [frame, timer] = [window.requestAnimationFrame, window.setTimeout];
  t.after(() => void Object.assign(window, { requestAnimationFrame: frame, setTimeout: timer }));
  let used = 0;
  window.requestAnimationFrame = () => ++used;
  window.setTimeout = (() => ++used) as unknown as typeof window.setTimeout;
  Object.defineProperty(document, "hidden", { value: true, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
  await works(t, story);
  t.equal(used, 0, "frames and timers that were waited for");
});
