// Engines for tests, disposed at the end of each.
import { Girih, type CreateOptions, type Notice } from "./package.js";
import type { Test } from "./registry.js";

/** An engine with the real module. The self-test has its own test. */
export async function engine(t: Test, options: CreateOptions = {}): Promise<Girih> {
  const girih = await Girih.create({ selfTest: false, ...options });
  t.after(() => girih.dispose());
  return girih;
}

/** An engine that keeps nothing. */
export function uncached(t: Test, options: CreateOptions = {}): Promise<Girih> {
  return engine(t, { cache: "none", ...options });
}

/** An engine with an empty cache, and what it notices about it. */
export async function withEmptyCache(t: Test, options: CreateOptions = {}): Promise<{ girih: Girih; notices: Notice[] }> {
  const notices: Notice[] = [];
  const girih = await engine(t, { onNotice: (notice) => notice.code.startsWith("cache-") && notices.push(notice), ...options });
  await girih.cache.clear();
  return { girih, notices };
}

/** An engine whose module is the made-up one of `fake_engine.ts`: for what has to do with messages only. */
export function fake(t: Test, options: CreateOptions = {}): Promise<Girih> {
  return engine(t, { workerUrl: new URL("./fake_worker.js", import.meta.url), cache: "none", ...options });
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
