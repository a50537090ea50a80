// The WebAssembly engine as its wasm-bindgen exports show it. One engine is one device.
import { GirihError } from "./errors.js";
import type {
  BenchReport, BenchRow, Caps, Counters, EmbedOptions, GenerateOptions, GenerateResult, Message, ModelInfo, ModelSource,
  Routing, TuneReport, TuneRow,
} from "./types.js";

/** The module `girih_web.js`. */
export interface EngineModule {
  default(options?: { module_or_path: string | URL }): Promise<unknown>;
  Engine: { create(options: EngineOptions): Promise<Engine> };
  Sha256: new () => Sha256;
  heapBytes(): number;
  version(): string;
  shaders(): string;
  lastPanic(): string | undefined;
}

export interface EngineOptions {
  device?: GPUDevice;
  maxTier?: string;
  powerPreference?: "high-performance" | "low-power";
}

export interface Engine {
  caps(): Omit<Caps, "architecture">;
  counters(): Counters;
  onLost(callback: (reason: string, message: string) => void): void;
  verdict(): { right: string[]; wrong: string[] };
  learn(right: string[], wrong: string[]): void;
  loadModel(
    source: ModelSource,
    options: {
      context?: number;
      weights?: string;
      activations?: string;
      keyValues?: "f32" | "f16";
      chatTemplate?: string;
      expertMemory?: number;
      expertEviction?: "lru" | "lfu";
      expertPrefetch?: "off" | "gate" | "statistics";
      selfTest?: boolean;
    },
    onProgress: (stage: "self-test" | "weights" | "pipelines", done: number, total: number) => void,
  ): Promise<EngineModel>;
  winners(): string;
  useWinners(text: string): boolean;
  /** `onRow` ends it by returning `false`. */
  tune(model: EngineModel, seconds: number, onRow: (row: TuneRow) => boolean): Promise<Omit<TuneReport, "adapter" | "tier">>;
  /** `onRow` ends it by returning `false`. */
  bench(options: { kernels?: string }, onRow: (row: BenchRow) => boolean): Promise<BenchReport>;
  destroy(): void;
  free(): void;
}

export interface EngineModel {
  info(): Omit<ModelInfo, "name">;
  session(context?: number): EngineSession;
  tokenize(text: string, addSpecial: boolean): Uint32Array;
  detokenize(ids: Uint32Array): string;
  embed(texts: string[], options: PromptOptions): Promise<Float32Array[]>;
  routing(ids: Uint32Array): Promise<Omit<Routing, "tokenIds">>;
  free(): void;
}

/** Called with text that is certain; `false` stops. */
export type OnText = (text: string) => boolean;

export interface EngineSession {
  generate(prompt: string | Uint32Array, options: SamplingOptions, onText: OnText): Promise<GenerateResult>;
  chat(messages: Message[], options: SamplingOptions, onText: OnText): Promise<GenerateResult>;
  cancel(): void;
  free(): void;
}

/** {@link GenerateOptions} without what only the page can use. */
export type SamplingOptions = Omit<GenerateOptions, "signal">;

/** {@link EmbedOptions} without what only the page can use. */
export type PromptOptions = Omit<EmbedOptions, "signal">;

/** A hash that grows. */
export interface Sha256 {
  update(bytes: Uint8Array): void;
  hex(): string;
  free(): void;
}

/** The real engine, compiled and ready. */
export async function loadEngine(wasmUrl?: string): Promise<EngineModule> {
  // A literal, so that bundlers see it; a cast, because the file is made by another compiler.
  const module = (await import("./girih_web.js" as string)) as EngineModule;
  await module.default(wasmUrl === undefined ? undefined : { module_or_path: wasmUrl }).catch((thrown: unknown) => {
    const from = wasmUrl ?? "beside girih_web.js";
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    throw new GirihError("internal", `the WebAssembly module (${from}) did not start: ${text}. It must be served as ` +
      "application/wasm, and a Content-Security-Policy must have 'wasm-unsafe-eval' in script-src", { cause: thrown });
  });
  return module;
}
