// The names of options. A name that a call does not know is an error: a typing mistake must not do something else.
import { GirihError } from "./errors.js";
import type {
  BenchOptions, CacheOptions, CreateOptions, EmbedOptions, GenerateOptions, LoadOptions, RebuildOptions, TuneOptions,
} from "./types.js";

/** Every name of an interface of options, so that the compiler sees when one is missing here. */
type Names<Options> = { readonly [Name in keyof Required<Options>]: true };

export const CREATE: Names<CreateOptions> = {
  device: true, worker: true, maxTier: true, powerPreference: true, cache: true, selfTest: true, onProgress: true,
  onNotice: true, onLost: true, wasmUrl: true, workerUrl: true, signal: true,
};
export const CACHE: Names<CacheOptions> = { maxBytes: true };
export const LOAD: Names<LoadOptions> = {
  context: true, weights: true, activations: true, keyValues: true, chatTemplate: true, expertMemory: true,
  expertEviction: true, expertPrefetch: true, manifest: true, integrity: true,
  headers: true, cache: true, onProgress: true, signal: true,
};
export const GENERATE: Names<GenerateOptions> = {
  maxTokens: true, temperature: true, topK: true, topP: true, minP: true, repetitionPenalty: true, presencePenalty: true,
  frequencyPenalty: true, logitBias: true, seed: true, stop: true, ignoreEos: true, template: true, signal: true,
};
export const EMBED: Names<EmbedOptions> = { promptName: true, prompt: true, signal: true };
export const BENCH: Names<BenchOptions> = { kernels: true, onRow: true, signal: true };
export const TUNE: Names<TuneOptions> = { seconds: true, onRow: true, signal: true };
export const REBUILD: Names<RebuildOptions> = { device: true };

/** Refuses what is no object of options, and names that `call` does not know. */
export function checkNames(call: string, options: unknown, known: object): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new GirihError("bad-argument", `${call}: the options are ${describe(options)}, must be an object`);
  }
  const wrong = Object.keys(options).filter((name) => !Object.hasOwn(known, name));
  if (wrong.length === 0) return;
  const names = Object.keys(known).join(", ");
  throw new GirihError("bad-argument", `${call}: found the option ${wrong.join(", ")}, wanted one of ${names}`);
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  return typeof value === "string" ? `"${value}"` : String(value);
}
