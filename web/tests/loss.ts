// Devices: lost, rebuilt, or the page's own.
import type { LostEvent } from "./package.js";
import { test } from "./registry.js";
import { MODEL, PROMPT, bytesOf, golden, watchRequests } from "./server.js";
import { own, until } from "./setup.js";
import { pageDevice, roundTrip } from "./gpu.js";

const GREEDY = { temperature: 0, maxTokens: 24 };

/** Destroys the devices of workers that listen. */
function destroyDevices(): void {
  const channel = new BroadcastChannel("girih-tests-loss");
  channel.postMessage(null);
  channel.close();
}

test("a_lost_device_is_told_and_rebuilt", async (t) => {
  const lost: LostEvent[] = [];
  const girih = await own(t, { workerUrl: new URL("./stubbed_worker.js", import.meta.url), onLost: (event) => lost.push(event) });
  const story = await girih.loadModel(MODEL);
  const wanted = (await golden()).greedy[0]?.new_token_ids.slice(0, 24) ?? [];
  const running = story.generate(PROMPT, { temperature: 0, maxTokens: 400 });
  const waiting = story.generate(PROMPT);
  const outcomes = [running, waiting].map(({ result }) => t.rejects(result, "device-lost", /rebuild/));
  await running[Symbol.asyncIterator]().next(); // it writes
  destroyDevices();
  await Promise.all(outcomes);
  t.equal(lost.map(({ reason }) => reason), ["destroyed"], "events");
  t.ok(girih.lost, "lost");
  await t.rejects(story.generate(PROMPT).result, "device-lost");
  await t.rejects(girih.loadModel(MODEL), "device-lost");
  const requests = await watchRequests();
  await Promise.all([girih.rebuild(), girih.rebuild()]);
  t.equal(bytesOf((await requests(MODEL)).filter(({ method }) => method === "GET")), 0, "bytes fetched for the rebuild");
  t.ok(!girih.lost, "lost, after the rebuild");
  const result = await story.generate(PROMPT, GREEDY).result;
  t.equal([...result.tokenIds], wanted, "tokens of the same object after the rebuild");
  t.equal(lost.length, 1, "events in all");
});

test("the_device_of_the_page_stays_usable", async (t) => {
  const device = await pageDevice();
  t.after(() => device.destroy());
  const girih = await own(t, { cache: "none", device });
  const story = await girih.loadModel(MODEL);
  const wanted = (await golden()).greedy[0]?.new_token_ids.slice(0, 24) ?? [];
  const generation = story.generate(PROMPT, GREEDY);
  let pieces = 0;
  for await (const _ of generation) pieces++;
  t.equal([...(await generation.result).tokenIds], wanted, "tokens");
  t.ok(pieces > 1, `${pieces} pieces`);
  t.equal(await roundTrip(device, 11), 11, "the page's own work, beside the engine");
  await girih.dispose();
  t.equal(await roundTrip(device, 12), 12, "the page's own work, after the engine");
  const again = await own(t, { cache: "none", device });
  t.equal([...(await (await again.loadModel(MODEL)).generate(PROMPT, GREEDY).result).tokenIds], wanted, "tokens of a second engine");
});

test("a_lost_device_of_the_page_needs_a_new_one", async (t) => {
  const device = await pageDevice();
  const lost: LostEvent[] = [];
  const girih = await own(t, { cache: "none", device, onLost: (event) => lost.push(event) });
  const story = await girih.loadModel(MODEL);
  device.destroy();
  await until("the event", () => lost.length === 1);
  await t.rejects(story.generate(PROMPT).result, "device-lost");
  await t.rejects(girih.rebuild(), "bad-argument", /rebuild\(\{ device \}\)/);
  const next = await pageDevice();
  t.after(() => next.destroy());
  await girih.rebuild({ device: next });
  const wanted = (await golden()).greedy[0]?.new_token_ids.slice(0, 24) ?? [];
  t.equal([...(await story.generate(PROMPT, GREEDY).result).tokenIds], wanted, "tokens");
});
