// Engines for tests. Most tests share one that stays, so that its kernels are compiled once.
import { Girih, type CreateOptions, type Model, type Notice } from "./package.js";
import type { Test } from "./registry.js";
import { MODEL } from "./server.js";

/** An engine of the test's own, disposed at its end. The self-test has its own test. */
export async function own(t: Test, options: CreateOptions = {}): Promise<Girih> {
  const girih = await Girih.create({ selfTest: false, ...options });
  t.after(() => girih.dispose());
  return girih;
}

/** Notices about the cache of the shared engine, since the test began. */
let told: Notice[] = [];

/** The shared engines: one that keeps downloads, and one that does not. */
const shared = new Map<"opfs" | "none", Promise<Girih>>();

async function share(t: Test, cache: "opfs" | "none"): Promise<Girih> {
  const onNotice = (notice: Notice) => notice.code.startsWith("cache-") && told.push(notice);
  const create = () => {
    const creating = Girih.create({ selfTest: false, cache, onNotice });
    shared.set(cache, creating);
    return creating;
  };
  let girih = await (shared.get(cache) ?? create());
  if (girih.lost) {
    await girih.dispose();
    girih = await create();
  }
  told = [];
  // What a test loads goes at its end.
  const load = Girih.prototype.loadModel.bind(girih);
  girih.loadModel = async (input, options) => {
    const model = await load(input, options);
    t.after(() => model.dispose());
    return model;
  };
  return girih;
}

/** The shared engine. */
export function engine(t: Test): Promise<Girih> {
  return share(t, "opfs");
}

/** The shared engine that keeps no downloads. */
export function uncached(t: Test): Promise<Girih> {
  return share(t, "none");
}

let story: { girih: Girih; model: Promise<Model> } | null = null;

/** The model of the stories, on the shared engine. It stays too. */
export async function storyTeller(t: Test): Promise<Model> {
  const girih = await engine(t);
  if (story?.girih !== girih) {
    const model = Girih.prototype.loadModel.call(girih, MODEL);
    story = { girih, model };
    model.catch(() => (story = null));
  }
  return story.model;
}

/** An engine with an empty cache, and what it notices about it: the shared one, or with options one of the test's own. */
export async function withEmptyCache(t: Test, options?: CreateOptions): Promise<{ girih: Girih; notices: Notice[] }> {
  let notices: Notice[] = [];
  let girih: Girih;
  if (options === undefined) {
    girih = await engine(t);
    notices = told;
  } else {
    girih = await own(t, { onNotice: (notice) => notice.code.startsWith("cache-") && notices.push(notice), ...options });
  }
  await girih.cache.clear();
  return { girih, notices };
}

/** An engine whose module is the made-up one of `fake_engine.ts`: for what has to do with messages only. */
export function fake(t: Test, options: CreateOptions = {}): Promise<Girih> {
  return own(t, { workerUrl: new URL("./fake_worker.js", import.meta.url), cache: "none", ...options });
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until something is so. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
  for (const start = performance.now(); !(await condition()); ) {
    if (performance.now() - start > ms) throw new Error(`waited ${ms} ms for: ${what}`);
    await sleep(5);
  }
}
