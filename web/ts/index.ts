/**
 * Language models in the browser.
 *
 * ```ts
 * const girih = await Girih.create();
 * const model = await girih.loadModel("/models/fable-5m/");
 * for await (const text of model.generate("Once upon a time")) story.append(text);
 * ```
 *
 * @module
 */
import { loadEngine } from "./engine.js";
import { GirihError } from "./errors.js";
import { TextStream } from "./generation.js";
import { EngineHost } from "./host.js";
import { BENCH, CACHE, CREATE, EMBED, GENERATE, LOAD, REBUILD, TUNE, checkNames } from "./options.js";
import { WorkerPeer } from "./peer.js";
import type { GenerateArgs, Input, LoadArgs, OpenArgs, Peer, PeerListener } from "./protocol.js";
import { nameFiles } from "./sources/files.js";
import { support, webgpuAdvice } from "./support.js";
import type {
  BenchOptions, BenchReport, CachedModel, Caps, CreateOptions, EmbedOptions, GenerateOptions, Generation, LoadOptions, Message,
  ModelCache, ModelInfo, ModelInput, ModelSource, ProgressEvent, RebuildOptions, Routing, Stats, Support, TuneOptions, TuneReport,
} from "./types.js";

export { GirihError, type ErrorCode } from "./errors.js";
export type * from "./types.js";

/** What {@link Girih} keeps of a model to load it again. */
interface LoadedModel {
  /** Its number at the host; another one after {@link Girih.rebuild}. */
  id: number;
  info: ModelInfo;
  readonly args: LoadArgs;
  readonly onProgress: ((event: ProgressEvent) => void) | undefined;
  /** Aborted when the model is disposed. */
  readonly gone: AbortController;
  /** Why it could not be loaded again. */
  failure: GirihError | null;
}

/** What a model may ask of its engine. */
interface Owner {
  peer(): Peer;
  forget(model: LoadedModel): void;
}

/** One engine on one device. */
export class Girih {
  readonly #options: CreateOptions;
  readonly #models = new Set<LoadedModel>();
  readonly #owner: Owner;
  readonly #gone = new AbortController();
  #peer: Peer | null = null;
  #caps: Caps | null = null;
  /** Why calls fail, from a loss to the end of a rebuild. */
  #failure: GirihError | null = null;
  #rebuilding: Promise<void> | null = null;
  #disposing: Promise<void> | null = null;
  /** What was downloaded before. It works without a device too. */
  readonly cache: ModelCache;

  private constructor(options: CreateOptions) {
    this.#options = options;
    this.#owner = { peer: () => this.#live(), forget: (model) => void this.#models.delete(model) };
    this.cache = {
      list: async (): Promise<CachedModel[]> => this.#open().call("cacheList", {}),
      remove: async (key) => this.#open().call("cacheRemove", { key }),
      clear: async () => this.#open().call("cacheClear", {}),
      usage: async () => this.#open().call("cacheUsage", {}),
    };
  }

  /** Starts an engine: a worker, the WebAssembly module, a device. */
  static async create(options: CreateOptions = {}): Promise<Girih> {
    checkNames("Girih.create", options, CREATE);
    if (typeof options.cache === "object") checkNames("Girih.create, cache", options.cache, CACHE);
    options.signal?.throwIfAborted();
    const { device, worker } = options;
    if (device !== undefined && worker === true) {
      throw new GirihError("bad-argument", "a GPUDevice cannot be sent to a worker: with `device`, leave out `worker: true`");
    }
    const girih = new Girih({ ...options });
    girih.#caps = await girih.#start(options.device, options.signal);
    return girih;
  }

  /** What this browser offers, without making a device. */
  static support(): Promise<Support> {
    return support();
  }

  /** What the device can do. */
  get caps(): Caps {
    if (this.#caps === null) throw new GirihError("internal", "the engine is not open");
    return this.#caps;
  }

  /** Whether the device is gone and {@link rebuild} is needed. */
  get lost(): boolean {
    return this.#failure !== null;
  }

  /** Loads a model. When this resolves, everything is compiled and, where hashes are known, checked. */
  async loadModel(input: ModelInput, options: LoadOptions = {}): Promise<Model> {
    checkNames("loadModel", options, LOAD);
    const peer = this.#live();
    const { onProgress, signal } = options;
    const manifest = options.manifest;
    const args: LoadArgs = {
      input: toInput(input),
      context: options.context,
      weights: options.weights,
      activations: options.activations,
      keyValues: options.keyValues,
      chatTemplate: options.chatTemplate,
      expertMemory: options.expertMemory,
      expertEviction: options.expertEviction,
      expertPrefetch: options.expertPrefetch,
      manifest: typeof manifest === "string" || manifest instanceof URL ? absolute(manifest) : manifest,
      integrity: options.integrity ?? {},
      headers: options.headers ?? {},
      cache: options.cache ?? "prefer",
    };
    const gone = new AbortController();
    const { model: id, info } = await peer.call("load", args, {
      signal: anySignal(signal, this.#gone.signal),
      onEvent: this.#reporter(onProgress),
      onLate: ({ model }) => void peer.call("release", { model }).catch(() => undefined),
    });
    const loaded: LoadedModel = { id, info, args, onProgress, gone, failure: null };
    this.#models.add(loaded);
    return newModel(this.#owner, loaded);
  }

  /** Times kernels on the device. */
  async bench(options: BenchOptions = {}): Promise<BenchReport> {
    checkNames("bench", options, BENCH);
    const { kernels, onRow, signal } = options;
    return this.#live().call("bench", { kernels }, { signal: anySignal(signal, this.#gone.signal), onEvent: onRow });
  }

  /**
   * Measures the variants of the kernels that a loaded model uses (all that are loaded if left out) and keeps those that
   * take the least time here: models that are loaded from now on use them, on this adapter also in later visits.
   */
  async tune(model?: Model, options: TuneOptions = {}): Promise<TuneReport> {
    checkNames("tune", options, TUNE);
    const { seconds = 30, onRow, signal } = options;
    if (!Number.isFinite(seconds) || seconds < 0) {
      throw new GirihError("bad-argument", `tune: seconds is ${String(seconds)}, must be a number from 0 on`);
    }
    const peer = this.#live();
    const models = model === undefined ? [...this.#models] : [loadedOf(model)];
    if (models.some((loaded) => !this.#models.has(loaded))) throw new GirihError("disposed", "the model was disposed");
    if (models.length === 0) throw new GirihError("bad-argument", "tune: no model is loaded, and the shapes to measure are those of a model");
    const failed = models.find(({ failure }) => failure !== null)?.failure;
    if (failed) throw failed;
    const args = { models: models.map(({ id }) => id), seconds };
    const { report, caps } = await peer.call("tune", args, { signal: anySignal(signal, this.#gone.signal), onEvent: onRow });
    this.#caps = caps;
    return report;
  }

  /** Forgets what {@link tune} has found on this adapter. */
  async resetTuning(): Promise<void> {
    this.#caps = await this.#live().call("resetTuning", {});
  }

  /** Memory, and counts of what was made. */
  async stats(): Promise<Stats> {
    const peer = this.#live();
    const stats = await peer.call("stats", {});
    return { ...stats, models: this.#models.size, longestTaskMs: peer.longestTaskMs };
  }

  /**
   * Makes a new device (after a loss, or at any time) and loads all models again, from the cache where they are there.
   * `Model` objects stay valid. An engine on the page's own device needs the new one.
   */
  async rebuild(options: RebuildOptions = {}): Promise<void> {
    checkNames("rebuild", options, REBUILD);
    this.#rebuilding ??= this.#rebuild(options.device).finally(() => {
      this.#rebuilding = null;
    });
    await this.#rebuilding;
  }

  async #rebuild(device: GPUDevice | undefined): Promise<void> {
    const old = this.#open();
    if (this.#options.device !== undefined && device === undefined) {
      throw new GirihError("bad-argument", "this engine runs on the page's own device: rebuild({ device }) needs the new one");
    }
    const failure = this.#failure ?? new GirihError("device-lost", "the engine is being rebuilt");
    this.#failure = failure;
    await old.close(failure);
    this.#caps = await this.#start(device, this.#gone.signal);
    const errors: unknown[] = [];
    for (const model of this.#models) {
      try {
        const peer = this.#open();
        const signal = anySignal(this.#gone.signal, model.gone.signal);
        const { model: id, info } = await peer.call("load", model.args, {
          signal,
          onEvent: this.#reporter(model.onProgress),
          onLate: (late) => void peer.call("release", { model: late.model }).catch(() => undefined),
        });
        Object.assign(model, { id, info, failure: null });
      } catch (thrown) {
        if (model.gone.signal.aborted) continue;
        model.failure = GirihError.from(thrown);
        errors.push(model.failure);
      }
    }
    // A second loss during the rebuild has set another failure.
    if (this.#failure === failure) this.#failure = null;
    if (errors.length > 0) throw errors[0];
    this.#live();
  }

  /** Ends the engine and its worker. Calls under way are rejected with `disposed`. */
  dispose(): Promise<void> {
    return (this.#disposing ??= this.#dispose());
  }

  async #dispose(): Promise<void> {
    const reason = new GirihError("disposed", "the engine was disposed");
    this.#failure = reason;
    this.#gone.abort(reason);
    for (const model of this.#models) model.gone.abort(reason);
    this.#models.clear();
    await this.#peer?.close(reason);
  }

  async #start(device: GPUDevice | undefined, signal: AbortSignal | undefined): Promise<Caps> {
    const { worker = device === undefined, cache = "opfs", workerUrl, wasmUrl, onProgress } = this.#options;
    const advice = webgpuAdvice();
    if (device === undefined && advice !== null) throw new GirihError("no-webgpu", advice);
    const listener: PeerListener = {
      notice: (notice) => this.#options.onNotice?.(notice),
      ended: (error, event) => {
        if (this.#peer !== peer || this.#disposing !== null) return;
        this.#failure = error;
        this.#options.onLost?.(event);
      },
    };
    const peer: Peer = worker
      ? new WorkerPeer(listener, workerUrl === undefined ? undefined : absolute(workerUrl))
      : new EngineHost(listener, loadEngine);
    this.#peer = peer;
    const args: OpenArgs = {
      device,
      maxTier: this.#options.maxTier,
      powerPreference: this.#options.powerPreference,
      cache: cache === "none" ? "none" : { maxBytes: (cache === "opfs" ? undefined : cache.maxBytes) ?? Number.MAX_SAFE_INTEGER },
      selfTest: this.#options.selfTest ?? true,
      wasmUrl: wasmUrl === undefined ? undefined : absolute(wasmUrl),
    };
    try {
      return await peer.call("open", args, { signal, onEvent: onProgress });
    } catch (thrown) {
      // Not waited for: a signal that was aborted shall reject at once.
      void peer.close(new GirihError("disposed", "the engine did not start"));
      throw thrown;
    }
  }

  #reporter(onProgress: ((event: ProgressEvent) => void) | undefined): (event: ProgressEvent) => void {
    const { onProgress: general } = this.#options;
    return (event) => {
      onProgress?.(event);
      if (general !== onProgress) general?.(event);
    };
  }

  /** The engine, if it was not disposed. */
  #open(): Peer {
    if (this.#peer === null || this.#disposing !== null) throw new GirihError("disposed", "the engine was disposed");
    return this.#peer;
  }

  /** The engine, if it works. */
  #live(): Peer {
    const peer = this.#open();
    if (this.#failure !== null) throw this.#failure;
    return peer;
  }
}

let newModel: (owner: Owner, loaded: LoadedModel) => Model;
let loadedOf: (model: Model) => LoadedModel;
let nextRun = 1;

/** A loaded model. It does one thing at a time: what is asked meanwhile waits its turn. */
export class Model {
  readonly #owner: Owner;
  readonly #loaded: LoadedModel;

  static {
    newModel = (owner, loaded) => new Model(owner, loaded);
    loadedOf = (model) => model.#loaded;
  }

  private constructor(owner: Owner, loaded: LoadedModel) {
    this.#owner = owner;
    this.#loaded = loaded;
  }

  /** What is known about it. */
  get info(): ModelInfo {
    return this.#loaded.info;
  }

  /** Continues a text. */
  generate(prompt: string | ArrayLike<number>, options: GenerateOptions = {}): Generation {
    return this.#write("generate", () => ({ prompt: typeof prompt === "string" ? prompt : toIds(prompt) }), options);
  }

  /** Answers a conversation, as the model's template puts it. */
  chat(messages: Message[], options: GenerateOptions = {}): Generation {
    return this.#write("chat", () => ({ messages }), options);
  }

  /** One vector for each text. */
  async embed(texts: string | string[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    checkNames("embed", options, EMBED);
    const list = typeof texts === "string" ? [texts] : texts;
    const { signal, ...prompt } = options;
    return this.#peer().call("embed", { model: this.#loaded.id, texts: list, options: prompt }, { signal: this.#signal(signal) });
  }

  /**
   * Which experts the tokens of a text go to, layer by layer, with their weights: those of one pass over the whole text. A
   * model without experts has no such layers.
   */
  async routing(text: string | ArrayLike<number>): Promise<Routing> {
    const input = typeof text === "string" ? text : toIds(text);
    return this.#peer().call("routing", { model: this.#loaded.id, input }, { signal: this.#signal() });
  }

  /** The tokens of a text, with those that the model begins or ends a text with. */
  async tokenize(text: string): Promise<Uint32Array> {
    return this.#peer().call("tokenize", { model: this.#loaded.id, text }, { signal: this.#signal() });
  }

  /** The text of tokens. */
  async detokenize(ids: ArrayLike<number>): Promise<string> {
    return this.#peer().call("detokenize", { model: this.#loaded.id, ids: toIds(ids) }, { signal: this.#signal() });
  }

  /** Frees its memory on the GPU. What is under way is rejected with `disposed`. */
  async dispose(): Promise<void> {
    const { gone, id, failure } = this.#loaded;
    if (gone.signal.aborted) return;
    gone.abort(new GirihError("disposed", "the model was disposed"));
    this.#owner.forget(this.#loaded);
    if (failure !== null) return;
    try {
      await this.#owner.peer().call("release", { model: id });
    } catch (thrown) {
      // An engine that is gone has freed everything.
      if (!(thrown instanceof GirihError && ["device-lost", "disposed", "internal"].includes(thrown.code))) throw thrown;
    }
  }

  #write(call: string, input: () => GenerateArgs["input"], options: GenerateOptions): Generation {
    const run = nextRun++;
    let peer: Peer | null = null;
    return new TextStream({
      write: async (onText) => {
        checkNames(call, options, GENERATE);
        const { signal, ...sampling } = options;
        const both = this.#signal(signal);
        both.throwIfAborted();
        peer = this.#peer();
        const args: GenerateArgs = { model: this.#loaded.id, run, input: input(), options: sampling };
        return peer.call("generate", args, { signal: both, onEvent: onText });
      },
      stop: () => void peer?.call("stop", { run }).catch(() => undefined),
    });
  }

  #peer(): Peer {
    this.#loaded.gone.signal.throwIfAborted();
    const peer = this.#owner.peer();
    if (this.#loaded.failure !== null) throw this.#loaded.failure;
    return peer;
  }

  #signal(signal?: AbortSignal): AbortSignal {
    return anySignal(signal, this.#loaded.gone.signal);
  }
}

function anySignal(...signals: (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined));
}

function absolute(url: string | URL): string {
  try {
    return new URL(url, typeof document === "undefined" ? globalThis.location.href : document.baseURI).href;
  } catch (thrown) {
    throw new GirihError("bad-argument", `"${String(url)}" is not a URL`, { cause: thrown });
  }
}

function toIds(ids: ArrayLike<number>): Uint32Array {
  const found = Array.from(ids);
  const wrong = found.find((id) => !Number.isInteger(id) || id < 0 || id > 0xffffffff);
  if (wrong !== undefined) throw new GirihError("bad-argument", `${wrong} is not a token id`);
  return Uint32Array.from(found);
}

function isSource(input: object): input is ModelSource {
  return typeof (input as Partial<ModelSource>).read === "function" && typeof (input as Partial<ModelSource>).size === "function";
}

function toInput(input: ModelInput): Input {
  if (typeof input === "string" || input instanceof URL) return { kind: "url", url: absolute(input) };
  if (input instanceof File) return { kind: "files", files: nameFiles([input]) };
  if (Array.isArray(input) || (typeof FileList !== "undefined" && input instanceof FileList)) return { kind: "files", files: nameFiles(input) };
  if (typeof FileSystemDirectoryHandle !== "undefined" && input instanceof FileSystemDirectoryHandle) {
    return { kind: "folder", folder: input };
  }
  if (typeof input === "object" && input !== null && isSource(input)) return { kind: "source", source: input };
  throw new GirihError("bad-argument", "a model is a URL, files, a folder handle, or an object with size() and read()");
}
