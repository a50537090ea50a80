declare global {
  /** The page's device. This empty declaration merges with the one of your types of WebGPU, if you have them. */
  interface GPUDevice {}
}

/** What a device offers: t0 any WebGPU device, t1 subgroups, t4 a CPU behind the API; t2 (matrix units) and t3 (large workgroups) have no kernels yet. */
export type Tier = "t0" | "t1" | "t2" | "t3" | "t4";

/** What the device can do. */
export interface Caps {
  tier: Tier;
  /** Name of the adapter, as far as the browser tells. */
  adapter: string;
  architecture: string;
  /** A software implementation, such as SwiftShader. */
  isCpu: boolean;
  /** Smallest and largest size of a subgroup; `null` without subgroups. */
  subgroups: [number, number] | null;
  f16: boolean;
  /** Integer dot products of packed bytes. */
  packedDot: boolean;
  timestamps: boolean;
  workgroupBytes: number;
  invocations: number;
  bindingBytes: number;
  bufferBytes: number;
  storageBuffers: number;
  /** Shapes for which {@link Girih.tune} has found another variant than the usual one, here or in an earlier visit. */
  tuned: number;
}

/** Counts of what was made on the device so far. */
export interface Counters {
  pipelines: number;
  bindGroups: number;
  buffers: number;
  submits: number;
  dispatches: number;
}

export interface CreateOptions {
  /**
   * The page's own device. The engine then runs in the caller's thread, because a device cannot be sent to a worker, and
   * never destroys it.
   */
  device?: GPUDevice;
  /** Run in a worker: `true` unless `device` is given. In a worker of your own say `false`. */
  worker?: boolean;
  /** Use nothing above this tier. */
  maxTier?: Tier;
  powerPreference?: "high-performance" | "low-power";
  /** Where downloads are kept: `"opfs"` (the browser's private file system) where there is one, `"none"`, or with a limit. */
  cache?: "opfs" | "none" | CacheOptions;
  /**
   * Known-answer test of the kernels that a model uses, when an adapter meets them for the first time with a version of
   * this package (`true`). Verdicts are kept; kernels that failed are avoided.
   */
  selfTest?: boolean;
  onProgress?: (event: ProgressEvent) => void;
  onNotice?: (notice: Notice) => void;
  /** The device is gone: at most once for each device. */
  onLost?: (event: LostEvent) => void;
  /** Where `girih_web_bg.wasm` is; beside `index.js` by default. */
  wasmUrl?: string | URL;
  /** Where `worker.js` is; beside `index.js` by default. */
  workerUrl?: string | URL;
  signal?: AbortSignal;
}

/** A limit of the cache of downloads. */
export interface CacheOptions {
  /** Bytes at most; what the browser allows if left out. */
  maxBytes?: number;
}

/** Options of {@link Girih.bench}. */
export interface BenchOptions {
  /** Only kernels whose name and shape, as in `gemv 1x4096x4096 f32`, contain this. */
  kernels?: string;
  onRow?: (row: BenchRow) => void;
  signal?: AbortSignal;
}

/** Options of {@link Girih.tune}. */
export interface TuneOptions {
  /** How long to measure; 30. What is left then keeps what it had. */
  seconds?: number;
  onRow?: (row: TuneRow) => void;
  /** Aborting it ends the measuring after the shape that is under way; what was found until then is kept. */
  signal?: AbortSignal;
}

/** Options of {@link Girih.rebuild}. */
export interface RebuildOptions {
  /** The new device of an engine on the page's own. */
  device?: GPUDevice;
}

/** Which experts tokens go to: {@link Model.routing}. */
export interface Routing {
  tokenIds: Uint32Array;
  /** The layers that have experts, from the first on; none if the model is no mixture of experts. */
  layers: LayerRouting[];
}

/** The experts of one layer. */
export interface LayerRouting {
  /** Index of the layer. */
  layer: number;
  /** Number of experts. */
  experts: number;
  /** Of each token the chosen experts with the factors of what they give, in the order in which these are added up. */
  routes: [expert: number, weight: number][][];
}

/** Options of {@link Model.embed}. */
export interface EmbedOptions {
  /** A prompt of the model to put in front of each text, by its name: `"query"`. Its default, if it has one, if left out. */
  promptName?: string;
  /** A prompt of your own; an empty one for none. */
  prompt?: string;
  signal?: AbortSignal;
}

/**
 * What is going on, in this order: `engine` (the WebAssembly module); then for each model `self-test` (of kernels that no
 * model before used on this device; files are read for it, too), `download` (bytes
 * of one file that are here, and how many of them came from the cache), `weights` (bytes on the GPU), `pipelines`
 * (compiled), `verify` (bytes hashed, if a whole file has to be), `ready`. After `ready` nothing is compiled any more.
 */
export type ProgressEvent =
  | { stage: "engine" }
  | { stage: "self-test" }
  | { stage: "download"; file: string; loaded: number; total: number; fromCache: number }
  | { stage: "weights" | "pipelines" | "verify"; done: number; total: number }
  | { stage: "ready" };

/** Something that works in another way than one may expect. */
export interface Notice {
  code: "cache-unavailable" | "cache-full" | "cache-evicted" | "blocked-kernel" | "model-note" | "no-subgroups";
  message: string;
}

/** Why the device is gone. */
export interface LostEvent {
  reason: string;
  message: string;
}

/**
 * A URL names a folder (its files are joined to it, a query is kept) or one `.gguf` file. Files: a folder that was
 * chosen or dropped, or one `.gguf`. Or anything that has `size` and `read`.
 */
export type ModelInput = string | URL | File | File[] | FileList | FileSystemDirectoryHandle | ModelSource;

/** Random access to the files of a model. */
export interface ModelSource {
  /** Bytes of a file, `null` if there is no such file. */
  size(file: string): Promise<number | null>;
  /** The bytes from `start` to before `end`. They are handed over: the array must own its buffer. */
  read(file: string, start: number, end: number): Promise<Uint8Array>;
  /** Names of all files, where they are known. A source of one `.gguf` file must have this. */
  list?(): string[];
}

export interface LoadOptions {
  /** Tokens that a conversation can have; a smaller number needs less memory. */
  context?: number;
  /** How weights are stored on the GPU, as `--weights` of the command. */
  weights?: string;
  /** How activations are multiplied, as `--activations` of the command. */
  activations?: string;
  /** Type of the keys and values of a conversation: `"f32"`, or `"f16"` in half the memory. */
  keyValues?: "f32" | "f16";
  /**
   * Conversations are written with this template instead of the model's: `"chatml"`, which many models without one were
   * trained with, or the text of a Jinja template. Special tokens are the model's.
   */
  chatTemplate?: string;
  /**
   * Bytes of the experts of a mixture that may be on the GPU, at least one of each kind. The others are read when a router chooses
   * them, from the cache or the source: it is needed as long as the model lives. Results are the same whatever the number.
   */
  expertMemory?: number;
  /** Which expert makes room: the one that was not used for the longest time, `"lru"`, or the least often used, `"lfu"`. */
  expertEviction?: "lru" | "lfu";
  /**
   * Experts that are read before they are chosen: none, `"off"`; those that the next layer's router would choose of this layer's
   * input, `"gate"`; or those that have followed so far, `"statistics"`.
   */
  expertPrefetch?: "off" | "gate" | "statistics";
  /**
   * Sizes and hashes of all files. By default `girih-manifest.json` beside the model, if it is there (for URLs);
   * `false`: none.
   */
  manifest?: string | URL | Manifest | false;
  /** File to `"sha256-<hex>"` of the whole file, checked before {@link Girih.loadModel} resolves. */
  integrity?: Record<string, string>;
  /** Sent with every request. */
  headers?: Record<string, string>;
  /** `"prefer"`: kept if there is room. `"require"`: `quota` error if there is none. `"none"`: neither read nor written. */
  cache?: "prefer" | "require" | "none";
  onProgress?: (event: ProgressEvent) => void;
  signal?: AbortSignal;
}

/** `girih-manifest.json`: all files of a model. A file that is not named here is taken as not there. */
export interface Manifest {
  version: 1;
  /** `blocks`: sha256 (hex) of each block of `blockSize` bytes. With them a block is checked when it arrives. */
  files: Record<string, { size: number; sha256: string; blockSize?: number; blocks?: string[] }>;
}

export interface ModelInfo {
  name: string;
  modelType: string;
  layers: number;
  hiddenSize: number;
  vocabSize: number;
  /** Tokens that a conversation can have, as loaded. */
  context: number;
  /** The most that the model allows. */
  maxContext: number;
  weightBytes: number;
  cacheBytes: number;
  parameters: number;
  /** It makes vectors, not text. */
  isEncoder: boolean;
  hasChatTemplate: boolean;
  notes: string[];
  unusedTensors: string[];
}

/**
 * What is left out is as the model's `generation_config.json` says. Where that is silent, {@link Model.generate} takes the
 * likeliest token each time, and {@link Model.chat} samples with temperature 0.8, top-k 40, top-p 0.95 and min-p 0.05.
 */
export interface GenerateOptions {
  maxTokens?: number;
  /** 0: always the likeliest token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  /** Added to the logits of token ids. */
  logitBias?: Record<number, number>;
  /** The same seed gives the same text on the same device. */
  seed?: number;
  /** Texts that end the generation; they are not part of the result. */
  stop?: string[];
  /** Goes on after the model's end tokens. */
  ignoreEos?: boolean;
  /** More variables for the chat template. */
  template?: Record<string, unknown>;
  signal?: AbortSignal;
}

export interface GenerateResult {
  text: string;
  tokenIds: Uint32Array;
  finish: "stop" | "length" | "context" | "cancelled";
  promptTokens: number;
  /** Prompt tokens that were still in the cache of the turn before. */
  cachedTokens: number;
  prefillSeconds: number;
  decodeSeconds: number;
  tokensPerSecond: number;
  dispatchesPerToken: number;
  /** Pipelines made during the generation: 0 after loading. */
  pipelinesCreated: number;
  /** Of a model with {@link LoadOptions.expertMemory}: what it cost. */
  experts: ExpertCounts | null;
}

/** What reading experts on demand came to. */
export interface ExpertCounts {
  /** Experts that a layer needed and that were on the GPU. */
  hits: number;
  /** Experts that a layer needed and that were read. */
  misses: number;
  /** Bytes that went to the GPU, experts that were read on a guess included. */
  bytes: number;
}

/**
 * A text that is being written. Iterate over it once: pieces come as they are certain, and a slow reader gets larger
 * pieces, never later ones. Breaking out of the loop cancels; `result` then has `finish: "cancelled"`.
 */
export interface Generation extends AsyncIterable<string> {
  /** The whole text and its numbers. Nobody has to look at it. */
  readonly result: Promise<GenerateResult>;
}

export interface Message {
  role: string;
  content: string;
  [key: string]: unknown;
}

export interface BenchRow {
  kernel: string;
  name: string;
  variant: string;
  medianMs: number;
  p10Ms: number;
  p90Ms: number;
  bytes: number;
  flops: number;
  /** FLOP for each byte. */
  intensity: number;
  rate: number;
  rateUnit: "GB/s" | "GFLOP/s";
  /** What bounds it, `read 16 MiB` or `f32`, and the percentage of that. */
  ceiling: string;
  ceilingPercent: number;
}

/** What a device can do at best. */
export interface Ceilings {
  /** Rates over sets of bytes that kernels go through again and again, from small to large. */
  memory: { setBytes: number; readGBs: number; writeGBs: number; copyGBs: number }[];
  f32Gflops: number;
  /** null where the device has no f16 arithmetic. */
  f16Gflops: number | null;
  /** Dot products of four bytes, eight operations each. */
  int8Gops: number;
  dispatchMicros: number;
  barrierMicros: number;
}

export interface BenchReport {
  adapter: string;
  tier: Tier;
  ceilings: Ceilings;
  rows: BenchRow[];
}

/** The variants of a kernel at one shape. */
export interface TuneRow {
  kernel: string;
  /** Format of weights, type of keys and values. */
  data: string;
  shape: string;
  /** What is usual on such a device, and its time. */
  rule: string;
  ruleMs: number;
  /** What is used from now on: the same, or what took less time by more than the times spread. */
  winner: string;
  winnerMs: number;
  /** What was used before. */
  before: string;
  /** How many variants were timed. */
  timed: number;
  /** Those that the device refused, or that computed something else; they are not used. */
  wrong: { variant: string; what: string }[];
}

export interface TuneReport {
  adapter: string;
  tier: Tier;
  seconds: number;
  rows: TuneRow[];
  /** Shapes that were not measured: time was over, or they do not fit the memory. */
  left: string[];
  /** Shapes that are in force with another variant than the usual one. */
  winners: number;
}

/** What {@link Girih.support} finds. */
export interface Support {
  webgpu: boolean;
  subgroups: boolean;
  f16: boolean;
  opfs: boolean;
  /** Why there is no WebGPU, and what to do. */
  reason?: string;
}

export interface Stats {
  /** Memory of the WebAssembly module. It never shrinks: this is the peak. */
  heapBytes: number;
  counters: Counters;
  models: number;
  /** The longest time in milliseconds for which a message from the worker held the caller's thread. */
  longestTaskMs: number;
}

/** A model in the cache. */
export interface CachedModel {
  key: string;
  url: string;
  bytes: number;
  /** It was loaded from here once: the next load needs no bytes from the network. */
  complete: boolean;
  lastUsed: Date;
}

/** Downloads that were kept. They belong to the origin of the page. */
export interface ModelCache {
  list(): Promise<CachedModel[]>;
  remove(key: string): Promise<void>;
  clear(): Promise<void>;
  /** Bytes in the cache, and the bytes that it may have. */
  usage(): Promise<{ used: number; quota: number }>;
}

