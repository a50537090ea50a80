// What the page asks of the engine's host, and the messages that carry it to a worker. Both ways of running the engine,
// in a worker and in the caller's thread, are a `Peer`.
import { GirihError, type ErrorCode } from "./errors.js";
import type { PromptOptions, SamplingOptions } from "./engine.js";
import type { NamedFile } from "./sources/files.js";
import type {
  BenchReport, BenchRow, CachedModel, Caps, Counters, GenerateResult, LostEvent, Manifest, Message, ModelInfo, ModelSource,
  Notice, ProgressEvent, Routing, Tier, TuneReport, TuneRow,
} from "./types.js";

/** A model as the host gets it. URLs are absolute. */
export type Input =
  | { kind: "url"; url: string }
  | { kind: "files"; files: NamedFile[] }
  | { kind: "folder"; folder: FileSystemDirectoryHandle }
  | { kind: "source"; source: ModelSource }
  /** A source that lives at the other end of the messages. */
  | { kind: "remote"; id: number; list: string[] | null };

export interface OpenArgs {
  device?: GPUDevice;
  maxTier?: Tier;
  powerPreference?: "high-performance" | "low-power";
  cache: "none" | { maxBytes: number };
  selfTest: boolean;
  wasmUrl?: string;
}

export interface LoadArgs {
  input: Input;
  context?: number;
  weights?: string;
  activations?: string;
  keyValues?: "f32" | "f16";
  chatTemplate?: string;
  expertMemory?: number;
  expertEviction?: "lru" | "lfu";
  expertPrefetch?: "off" | "gate" | "statistics";
  manifest?: string | Manifest | false;
  integrity: Record<string, string>;
  headers: Record<string, string>;
  cache: "prefer" | "require" | "none";
}

export interface GenerateArgs {
  model: number;
  /** Names the generation in `stop`. */
  run: number;
  input: { prompt: string | Uint32Array } | { messages: Message[] };
  options: SamplingOptions;
}

/** Every call: its arguments, its result, and what it reports on the way. */
export interface Calls {
  open: { args: OpenArgs; result: Caps; event: ProgressEvent };
  load: { args: LoadArgs; result: { model: number; info: ModelInfo }; event: ProgressEvent };
  release: { args: { model: number }; result: void; event: never };
  generate: { args: GenerateArgs; result: GenerateResult; event: string };
  /** Ends a generation early. Its result says `cancelled`. */
  stop: { args: { run: number }; result: void; event: never };
  embed: { args: { model: number; texts: string[]; options: PromptOptions }; result: Float32Array[]; event: never };
  routing: { args: { model: number; input: string | Uint32Array }; result: Routing; event: never };
  tokenize: { args: { model: number; text: string }; result: Uint32Array; event: never };
  detokenize: { args: { model: number; ids: Uint32Array }; result: string; event: never };
  bench: { args: { kernels?: string }; result: BenchReport; event: BenchRow };
  /** Measures what models use, one after the other. */
  tune: { args: { models: number[]; seconds: number }; result: { report: TuneReport; caps: Caps }; event: TuneRow };
  /** Forgets what was measured. */
  resetTuning: { args: object; result: Caps; event: never };
  stats: { args: object; result: { heapBytes: number; counters: Counters }; event: never };
  cacheList: { args: object; result: CachedModel[]; event: never };
  cacheRemove: { args: { key: string }; result: void; event: never };
  cacheClear: { args: object; result: void; event: never };
  cacheUsage: { args: object; result: { used: number; quota: number }; event: never };
}
export type Method = keyof Calls;

export interface CallOptions<M extends Method> {
  /** Aborting it rejects the call at once, with its reason. */
  signal?: AbortSignal;
  onEvent?: (event: Calls[M]["event"]) => void;
  /** Called with a result that came although the call was aborted. */
  onLate?: (result: Calls[M]["result"]) => void;
}

/** The engine, wherever it runs. */
export interface Peer {
  call<M extends Method>(method: M, args: Calls[M]["args"], options?: CallOptions<M>): Promise<Calls[M]["result"]>;
  /** Ends it. Calls under way are rejected with `reason`. */
  close(reason: GirihError): Promise<void>;
  /** See `Stats`. */
  readonly longestTaskMs: number;
}

/** What a peer tells unasked. */
export interface PeerListener {
  notice(notice: Notice): void;
  /** Nothing works any more: all calls, now and later, are rejected with `error`. At most once. */
  ended(error: GirihError, event: LostEvent): void;
}

/** An error on its way. */
export interface WireError {
  code: ErrorCode;
  message: string;
  stack?: string;
}

export function toWire(thrown: unknown): WireError {
  const { code, message, stack } = GirihError.from(thrown);
  return { code, message, stack };
}

export function fromWire({ code, message, stack }: WireError): GirihError {
  const error = new GirihError(code, message);
  if (stack !== undefined) error.stack = stack;
  return error;
}

/** Page to worker. */
export type ToWorker =
  | { kind: "call"; id: number; method: Method; args: Calls[Method]["args"] }
  | { kind: "cancel"; id: number }
  | { kind: "close" }
  | { kind: "source-reply"; id: number; value: number | null | Uint8Array }
  | { kind: "source-error"; id: number; error: WireError };

/** Worker to page. */
export type FromWorker =
  | { kind: "result"; id: number; value: unknown }
  | { kind: "error"; id: number; error: WireError }
  | { kind: "event"; id: number; event: unknown }
  | { kind: "notice"; notice: Notice }
  | { kind: "ended"; error: WireError; event: LostEvent }
  | { kind: "closed" }
  | { kind: "source-size"; id: number; source: number; file: string }
  | { kind: "source-read"; id: number; source: number; file: string; start: number; end: number };

/** A promise that `signal` rejects with its reason, at once. */
export function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** The buffers that a value can hand over instead of copying. */
export function transferables(value: unknown): ArrayBuffer[] {
  const found: ArrayBuffer[] = [];
  const look = (part: unknown) => {
    if (ArrayBuffer.isView(part) && part.buffer instanceof ArrayBuffer && part.byteLength === part.buffer.byteLength) {
      if (!found.includes(part.buffer)) found.push(part.buffer);
    }
  };
  look(value);
  if (Array.isArray(value)) value.forEach(look);
  else if (typeof value === "object" && value !== null && !ArrayBuffer.isView(value)) Object.values(value).forEach(look);
  return found;
}
