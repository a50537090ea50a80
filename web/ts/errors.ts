/** What went wrong, as a word that code can act on. The message of the error says what was found and what was wanted. */
export type ErrorCode =
  /** The browser has no WebGPU, or not in this context. */
  | "no-webgpu"
  /** WebGPU is there, but gives no adapter. */
  | "no-adapter"
  /** The device lacks something that every kernel needs. */
  | "device-too-small"
  /** The device is gone. {@link Girih.rebuild} makes another one. */
  | "device-lost"
  /** Weights or cache do not fit the memory. */
  | "out-of-memory"
  /** A file is not there. */
  | "not-found"
  /** A transfer failed, retries included. */
  | "network"
  /** Another origin does not allow this page to read the file. */
  | "blocked-by-cors"
  /** A large file on a server that ignores `Range`, and nowhere to keep it. */
  | "range-unsupported"
  /** Size or hash of a file are not what they should be. */
  | "integrity"
  /** A file of the model cannot be read as what it should be. */
  | "malformed-model"
  /** A model that is well-formed, but of a kind that is not implemented. */
  | "unsupported-model"
  /** The prompt does not fit the context. */
  | "prompt-too-long"
  /** An argument is wrong. */
  | "bad-argument"
  /** The object is in use. */
  | "busy"
  /** The object was disposed. */
  | "disposed"
  /** Caching was demanded, and there is no room or no cache. */
  | "quota"
  /** A fault of this package. */
  | "internal";

const CODES: ReadonlySet<string> = new Set<ErrorCode>([
  "no-webgpu", "no-adapter", "device-too-small", "device-lost", "out-of-memory", "not-found", "network",
  "blocked-by-cors", "range-unsupported", "integrity", "malformed-model", "unsupported-model", "prompt-too-long",
  "bad-argument", "busy", "disposed", "quota", "internal",
]);

/** Every error of this package, except cancellation: that rejects with the reason of the signal, as `fetch` does. */
export class GirihError extends Error {
  /** What went wrong, as a word. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "GirihError";
    this.code = code;
  }

  /** Any thrown value as an error of this package. An error with a known `code` keeps it; others are `internal`. */
  static from(thrown: unknown): GirihError {
    if (thrown instanceof GirihError) return thrown;
    const { code, message } = (thrown ?? {}) as { code?: unknown; message?: unknown };
    const text = typeof message === "string" ? message : String(thrown);
    return typeof code === "string" && CODES.has(code)
      ? new GirihError(code as ErrorCode, text, { cause: thrown })
      : new GirihError("internal", text, { cause: thrown });
  }
}

/** Whether a thrown value is the reason of `signal`. */
export function isAbort(thrown: unknown, signal: AbortSignal): boolean {
  return signal.aborted && (thrown === signal.reason || (thrown instanceof DOMException && thrown.name === "AbortError"));
}
