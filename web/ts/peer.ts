// The page's end of the messages: the engine in a worker.
import { GirihError } from "./errors.js";
import { abortable, fromWire, toWire, transferables, type CallOptions, type Calls, type FromWorker, type LoadArgs, type Method,
  type Peer, type PeerListener, type ToWorker } from "./protocol.js";
import type { ModelSource } from "./types.js";

/** How long disposing waits for the worker to clean up. */
const CLOSE_MS = 2000;

interface Pending {
  resolve(value: unknown): void;
  reject(thrown: unknown): void;
  onEvent?: (event: unknown) => void;
  onLate?: (value: unknown) => void;
  aborted: boolean;
}

/** A worker from a script beside this module, or from `url`. Scripts of other origins start through a module of ours. */
function startWorker(url: string | undefined): Worker {
  const options: WorkerOptions = { type: "module", name: "girih" };
  const script = url ?? new URL("./worker.js", import.meta.url).href;
  if (new URL(script).origin === globalThis.location.origin || script.startsWith("blob:")) {
    // Bundlers look for this very expression.
    return url === undefined
      ? new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "girih" })
      : new Worker(url, options);
  }
  // A worker must be of the page's origin; what it imports need not be.
  const start = URL.createObjectURL(new Blob([`import ${JSON.stringify(script)};`], { type: "text/javascript" }));
  const worker = new Worker(start, options);
  // The script has been fetched when the first message or error comes.
  const revoke = () => URL.revokeObjectURL(start);
  worker.addEventListener("message", revoke, { once: true });
  worker.addEventListener("error", revoke, { once: true });
  return worker;
}

export class WorkerPeer implements Peer {
  longestTaskMs = 0;
  readonly #listener: PeerListener;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly #sources = new Map<number, ModelSource>();
  /** Sources of models that read on, by the numbers of the models. */
  readonly #read = new Map<number, number>();
  #next = 1;
  #failure: GirihError | null = null;
  #started = false;
  #onClosed: () => void = () => undefined;

  constructor(listener: PeerListener, url: string | undefined) {
    this.#listener = listener;
    this.#worker = startWorker(url);
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      const start = performance.now();
      this.#started = true;
      this.#receive(data);
      this.longestTaskMs = Math.max(this.longestTaskMs, performance.now() - start);
    };
    this.#worker.onmessageerror = () => this.#died("a message could not be read");
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#died(this.#started
        ? event.message
        : `it could not be started from ${url ?? new URL("./worker.js", import.meta.url).href}${event.message ? `: ${event.message}` : ""}. ` +
          "The script must be there, be served as text/javascript, and be allowed by worker-src of the Content-Security-Policy");
    };
  }

  call<M extends Method>(method: M, args: Calls[M]["args"], options: CallOptions<M> = {}): Promise<Calls[M]["result"]> {
    const { signal, onEvent, onLate } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#failure !== null && !(method.startsWith("cache") && this.#started)) return Promise.reject(this.#failure);
    const id = this.#next++;
    const [sent, source] = method === "load" ? this.#withoutSource(args as LoadArgs) : [args, null];
    const pending: Pending = {
      resolve: () => undefined, reject: () => undefined, aborted: false,
      onEvent: onEvent as Pending["onEvent"], onLate: onLate as Pending["onLate"],
    };
    const answer = new Promise<Calls[M]["result"]>((resolve, reject) => {
      pending.resolve = resolve as Pending["resolve"];
      pending.reject = reject;
    });
    this.#pending.set(id, pending);
    try {
      this.#post({ kind: "call", id, method, args: sent });
    } catch (thrown) {
      this.#pending.delete(id);
      const text = thrown instanceof Error ? thrown.message : String(thrown);
      return Promise.reject(new GirihError("bad-argument", `an argument cannot be sent to the worker: ${text}`, { cause: thrown }));
    }
    const cancel = () => {
      pending.aborted = true;
      this.#post({ kind: "cancel", id });
    };
    signal?.addEventListener("abort", cancel, { once: true });
    void answer.catch(() => undefined).then((value) => {
      signal?.removeEventListener("abort", cancel);
      if (method === "release") this.#forget((args as Calls["release"]["args"]).model);
      if (source === null) return;
      if (value !== undefined && (args as LoadArgs).expertMemory !== undefined) this.#read.set((value as Calls["load"]["result"]).model, source);
      else this.#sources.delete(source);
    });
    return abortable(answer, signal);
  }

  async close(reason: GirihError): Promise<void> {
    const alive = this.#started && (this.#failure === null || this.#failure.code === "device-lost");
    this.#fail(reason);
    if (alive) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, CLOSE_MS);
        this.#onClosed = () => {
          clearTimeout(timer);
          resolve();
        };
        this.#post({ kind: "close" });
      });
    }
    this.#terminate();
  }

  #terminate(): void {
    this.#worker.onmessage = null;
    this.#worker.onmessageerror = null;
    this.#worker.onerror = null;
    this.#worker.terminate();
    this.#sources.clear();
    this.#read.clear();
  }

  #post(message: ToWorker, transfer: Transferable[] = []): void {
    this.#worker.postMessage(message, transfer);
  }

  /** Rejects all calls, now and later. */
  #fail(error: GirihError): void {
    this.#failure = error;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) reject(error);
  }

  #died(message: string): void {
    const error = new GirihError("internal", `the worker ended: ${message}`);
    const first = this.#failure === null;
    this.#started = false;
    this.#fail(error);
    this.#onClosed();
    if (first) this.#listener.ended(error, { reason: "worker", message });
  }

  #receive(message: FromWorker): void {
    switch (message.kind) {
      case "result": {
        const pending = this.#take(message.id);
        if (pending?.aborted) pending.onLate?.(message.value);
        else pending?.resolve(message.value);
        pending?.reject(undefined); // no effect on a promise that is resolved; ends one that was aborted
        break;
      }
      case "error":
        this.#take(message.id)?.reject(fromWire(message.error));
        break;
      case "event": {
        const pending = this.#pending.get(message.id);
        if (pending?.aborted === false) pending.onEvent?.(message.event);
        break;
      }
      case "notice":
        this.#listener.notice(message.notice);
        break;
      case "ended": {
        const error = fromWire(message.error);
        if (this.#failure !== null) break;
        this.#fail(error);
        this.#listener.ended(error, message.event);
        break;
      }
      case "closed":
        this.#onClosed();
        break;
      case "source-size":
        void this.#reply(message.id, this.#source(message.source, (source) => source.size(message.file)));
        break;
      case "source-read": {
        const { file, start, end } = message;
        void this.#reply(message.id, this.#source(message.source, (source) => source.read(file, start, end)));
        break;
      }
    }
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  /** A source of the page stays there; the worker asks for its bytes. */
  #withoutSource(args: LoadArgs): [LoadArgs, number | null] {
    if (args.input.kind !== "source") return [args, null];
    const { source } = args.input;
    const id = this.#next++;
    this.#sources.set(id, source);
    return [{ ...args, input: { kind: "remote", id, list: source.list?.() ?? null } }, id];
  }

  /** Nothing is read for a model any more. */
  #forget(model: number): void {
    const source = this.#read.get(model);
    if (source !== undefined) this.#sources.delete(source);
    this.#read.delete(model);
  }

  async #source<T>(id: number, work: (source: ModelSource) => Promise<T>): Promise<T> {
    const source = this.#sources.get(id);
    if (source === undefined) throw new GirihError("disposed", "what used this source is over");
    return work(source);
  }

  async #reply(id: number, value: Promise<number | null | Uint8Array>): Promise<void> {
    try {
      const found = await value;
      this.#post({ kind: "source-reply", id, value: found }, transferables(found));
    } catch (thrown) {
      this.#post({ kind: "source-error", id, error: toWire(thrown) });
    }
  }
}
