// Owns the engine: in the worker, or in the caller's thread. What both ways do is here and nowhere else.
import type { Engine, EngineModel, EngineModule, EngineSession } from "./engine.js";
import { GirihError } from "./errors.js";
import { parseIntegrity } from "./manifest.js";
import { abortable, type CallOptions, type Calls, type GenerateArgs, type Input, type LoadArgs, type Method, type OpenArgs,
  type Peer, type PeerListener } from "./protocol.js";
import { FilesSource } from "./sources/files.js";
import { HttpSource } from "./sources/http.js";
import { BlockStore, noCache, readVerdict, readWinners, writeVerdict, writeWinners } from "./sources/opfs.js";
import { architectureOf, webgpuAdvice } from "./support.js";
import type { Caps, GenerateResult, Manifest, ModelSource, ProgressEvent, TuneReport, TuneRow } from "./types.js";

/** Bytes that are hashed at a time. */
const HASH_BYTES = 8 << 20;
/** How long closing waits for what runs. */
const CLOSE_MS = 1000;
/** What the engine writes when nothing was measured. */
const NO_WINNERS = "girih measured winners: 0\n";
/** How long after a failure the loss of the device may be told. */
const LOSS_MS = 100;

/** A loaded model, and what waits for it. */
interface HostModel {
  engine: EngineModel;
  /** Made with the model: what does not fit shows when it is loaded. Encoders have none. */
  session: EngineSession | null;
  /** Ends when everything that was asked so far is done: one thing at a time. */
  turn: Promise<unknown>;
  released: boolean;
  /** What it was loaded from, and its experts are. */
  source: WatchedSource;
  /** Ends what is read for it. */
  close(): void;
}

/** A generation, running or waiting. */
interface Run {
  model: HostModel;
  stopped: boolean;
  session: EngineSession | null;
}

type Handler<M extends Method> =
  (args: Calls[M]["args"], emit: (event: Calls[M]["event"]) => void, signal: AbortSignal) => Promise<Calls[M]["result"]>;

export class EngineHost implements Peer {
  readonly longestTaskMs = 0;
  readonly #listener: PeerListener;
  readonly #loadModule: (wasmUrl?: string) => Promise<EngineModule>;
  #module: EngineModule | null = null;
  #engine: Engine | null = null;
  /** Under which name verdicts about the adapter are kept, how many there are, and which were noticed; `null` without self-tests. */
  #tested: { about: string; adapter: string; known: number; noticed: Set<string> } | null = null;
  /** Adapter, version, shaders and browser: what is measured is kept under it. */
  #about = "";
  #architecture = "";
  #store: BlockStore | null = null;
  readonly #models = new Map<number, HostModel>();
  readonly #runs = new Map<number, Run>();
  #nextModel = 1;
  /** Calls that have not come back from the engine. */
  #busy = 0;
  /** Why nothing works any more. */
  #failure: GirihError | null = null;
  /** Rejects every call when the engine ends. */
  readonly #end = new AbortController();
  readonly #handlers: { [M in Method]: Handler<M> } = {
    open: (args, emit, signal) => this.#open(args, emit, signal),
    load: (args, emit, signal) => this.#load(args, emit, signal),
    release: ({ model }) => this.#release(model),
    generate: (args, emit, signal) => this.#generate(args, emit, signal),
    stop: async ({ run }) => this.#stop(run),
    embed: ({ model, texts, options }) => this.#inTurn(this.#model(model), (m) => m.engine.embed(texts, options)),
    routing: ({ model, input }) => this.#inTurn(this.#model(model), async ({ engine }) => {
      const tokenIds = typeof input === "string" ? engine.tokenize(input, true) : input;
      return { tokenIds, ...(await engine.routing(tokenIds)) };
    }),
    tokenize: async ({ model, text }) => this.#model(model).engine.tokenize(text, true),
    detokenize: async ({ model, ids }) => this.#model(model).engine.detokenize(ids),
    bench: ({ kernels }, emit, signal) => this.#live().bench({ kernels }, (row) => {
      emit(row);
      return !signal.aborted;
    }),
    tune: ({ models, seconds }, emit, signal) => this.#tune(models, seconds, emit, signal),
    resetTuning: () => this.#resetTuning(),
    stats: async () => ({ heapBytes: this.#module?.heapBytes() ?? 0, counters: this.#live().counters() }),
    cacheList: async () => (await this.#store?.list()) ?? [],
    cacheRemove: async ({ key }) => this.#store?.remove(key),
    cacheClear: async () => this.#store?.clear(),
    cacheUsage: async () => (await this.#store?.usage()) ?? { used: 0, quota: 0 },
  };

  constructor(listener: PeerListener, loadModule: (wasmUrl?: string) => Promise<EngineModule>) {
    this.#listener = listener;
    this.#loadModule = loadModule;
  }

  async call<M extends Method>(method: M, args: Calls[M]["args"], options: CallOptions<M> = {}): Promise<Calls[M]["result"]> {
    const { signal = new AbortController().signal, onEvent = () => undefined, onLate = () => undefined } = options;
    signal.throwIfAborted();
    const needsEngine = !method.startsWith("cache");
    if (needsEngine && this.#failure !== null) throw this.#failure;
    const emit = (event: Calls[M]["event"]) => {
      if (!signal.aborted) onEvent(event);
    };
    const handler: Handler<M> = this.#handlers[method];
    // Started in a microtask, so that what a handler throws is a rejection too.
    this.#busy++;
    const work = Promise.resolve().then(() => handler(args, emit, signal)).finally(() => this.#busy--);
    void work.then((result) => signal.aborted && onLate(result), () => undefined);
    try {
      return await abortable(needsEngine ? abortable(work, this.#end.signal) : work, signal);
    } catch (thrown) {
      if (signal.aborted || this.#failure !== null) throw thrown;
      const error = this.#explain(thrown);
      if (error.code !== "internal" || this.#engine === null) throw error;
      // What fails on a device that is going is told before the loss of the device.
      const { signal: end } = this.#end;
      await new Promise((done) => {
        setTimeout(done, LOSS_MS);
        end.addEventListener("abort", done, { once: true });
      });
      throw this.#failure ?? error;
    }
  }

  async close(reason: GirihError): Promise<void> {
    if (this.#failure === null) this.#fail(reason);
    else this.#end.abort(reason);
    for (const run of this.#runs.keys()) this.#stop(run);
    // A panic leaves the module in an unknown state: it is not called again.
    if (!this.#trapped()) {
      const models = [...this.#models.values()];
      this.#models.clear();
      const engine = this.#engine;
      engine?.destroy();
      const freed = models.map((model) => model.turn.then(() => free(model)));
      // What never answers is left to the garbage collector.
      await Promise.race([Promise.allSettled(freed), new Promise((done) => setTimeout(done, CLOSE_MS))]);
      if (this.#busy === 0) engine?.free();
    }
    this.#engine = null;
    this.#store = null;
  }

  #fail(error: GirihError): void {
    this.#failure = error;
    this.#end.abort(error);
  }

  #trapped(): boolean {
    try {
      return this.#module?.lastPanic() !== undefined;
    } catch {
      return true;
    }
  }

  /** An error of the engine. A trap ends it. */
  #explain(thrown: unknown): GirihError {
    if (this.#module === null || (!(thrown instanceof WebAssembly.RuntimeError) && !this.#trapped())) return GirihError.from(thrown);
    const panic = this.#module.lastPanic() ?? String(thrown);
    const error = new GirihError("internal", `the engine panicked, rebuild() makes a new one: ${panic}`, { cause: thrown });
    if (this.#failure === null) {
      this.#fail(error);
      this.#listener.ended(error, { reason: "panic", message: panic });
    }
    return error;
  }

  #live(): Engine {
    if (this.#engine === null) throw new GirihError("internal", "the engine is not open");
    return this.#engine;
  }

  #model(id: number): HostModel {
    const model = this.#models.get(id);
    if (model === undefined) throw new GirihError("disposed", "the model was disposed");
    return model;
  }

  async #open(args: OpenArgs, emit: (event: ProgressEvent) => void, signal: AbortSignal): Promise<Caps> {
    const advice = webgpuAdvice();
    if (args.device === undefined && advice !== null) throw new GirihError("no-webgpu", advice);
    emit({ stage: "engine" });
    this.#module = await this.#loadModule(args.wasmUrl);
    signal.throwIfAborted();
    const panic = this.#module.lastPanic();
    if (panic !== undefined) {
      throw new GirihError("internal", `the engine of this thread has panicked, only reloading the page helps: ${panic}`);
    }
    const { device, maxTier, powerPreference } = args;
    const engine = await this.#module.Engine.create({ device, maxTier, powerPreference });
    if (signal.aborted || this.#failure !== null) {
      engine.destroy();
      throw this.#failure ?? signal.reason;
    }
    this.#engine = engine;
    engine.onLost((reason, message) => {
      if (this.#failure !== null) return;
      const error = new GirihError("device-lost", `the GPU device is lost (${reason}): ${message.replace(/\.$/, "")}. rebuild() makes a new one`);
      this.#fail(error);
      this.#listener.ended(error, { reason, message });
    });
    this.#architecture = await architectureOf(device, powerPreference);
    const { adapter, tier } = engine.caps();
    const kernels = `${this.#module.version()}\n${this.#module.shaders()}`;
    this.#about = [kernels, adapter, this.#architecture, tier, navigator.userAgent].join("\n");
    const winners = await readWinners(this.#about);
    if (winners !== null) engine.useWinners(winners); // another text than it wrote counts for nothing
    const caps = this.#caps();
    if (caps.subgroups === null) {
      this.#listener.notice({ code: "no-subgroups", message: `${caps.adapter} offers no subgroups: slower kernels are used` });
    }
    if (args.cache !== "none") {
      this.#store = await BlockStore.open(args.cache.maxBytes, (notice) => this.#listener.notice(notice));
    }
    if (args.selfTest) await this.#recall(engine, adapter);
    return caps;
  }

  #caps(): Caps {
    return { ...this.#live().caps(), architecture: this.#architecture };
  }

  /** Measures what models use, each in its turn and for a share of the time that is left. */
  async #tune(
    models: number[], seconds: number, emit: (row: TuneRow) => void, signal: AbortSignal,
  ): Promise<Calls["tune"]["result"]> {
    const engine = this.#live();
    const { adapter, tier } = engine.caps();
    const report: TuneReport = { adapter, tier, seconds: 0, rows: [], left: [], winners: 0 };
    for (const [index, id] of models.entries()) {
      const share = Math.max(0, seconds - report.seconds) / (models.length - index);
      const found = await this.#inTurn(this.#model(id), (model) => engine.tune(model.engine, share, (row) => {
        emit(row);
        return !signal.aborted;
      }));
      report.seconds += found.seconds;
      report.rows.push(...found.rows);
      report.left.push(...found.left);
      report.winners = found.winners;
      await writeWinners(this.#about, engine.winners());
      if (signal.aborted) break;
    }
    return { report, caps: this.#caps() };
  }

  async #resetTuning(): Promise<Caps> {
    const engine = this.#live();
    engine.useWinners(NO_WINNERS);
    await writeWinners(this.#about, NO_WINNERS);
    return this.#caps();
  }

  /** Tells the engine what is known of an adapter with this version, these shaders and this browser. */
  async #recall(engine: Engine, adapter: string): Promise<void> {
    const about = this.#about;
    this.#tested = { about, adapter, known: 0, noticed: new Set() };
    const verdict = await readVerdict(about);
    if (verdict !== null) engine.learn(verdict.right, verdict.wrong);
    this.#tested.known = verdict === null ? 0 : verdict.right.length + verdict.wrong.length;
  }

  /** Keeps what the self-test of a load has found, and says what is avoided. */
  async #remember(engine: Engine): Promise<void> {
    const tested = this.#tested;
    if (tested === null) return;
    const verdict = engine.verdict();
    const known = verdict.right.length + verdict.wrong.length;
    for (const kernel of verdict.wrong.filter((name) => !tested.noticed.has(name))) {
      tested.noticed.add(kernel);
      this.#listener.notice({ code: "blocked-kernel", message: `${kernel} computes wrong results on ${tested.adapter} and is avoided` });
    }
    if (known === tested.known) return;
    tested.known = known;
    await writeVerdict(tested.about, verdict);
  }

  async #load(args: LoadArgs, emit: (event: ProgressEvent) => void, signal: AbortSignal): Promise<Calls["load"]["result"]> {
    // Ends the transfers of this load when it is over, when the caller aborts it, or when the engine ends.
    const over = AbortSignal.any([signal, this.#end.signal]);
    // Experts are read as long as the model lives, whatever becomes of the signal of its load.
    const keeps = args.expertMemory !== undefined;
    const life = new AbortController();
    const end = () => life.abort(over.reason);
    if (over.aborted) end();
    over.addEventListener("abort", end);
    let kept = false;
    const integrity = Object.entries(args.integrity).map(([file, value]): [string, string] => [file, parseIntegrity(file, value)]);
    const report = (event: ProgressEvent) => {
      if (!kept) emit(event);
    };
    const source = await this.#source(args, report, AbortSignal.any([life.signal, this.#end.signal]));
    const http = source instanceof HttpSource ? source : null;
    try {
      let manifest: Manifest | null = null;
      if (http !== null) manifest = await http.useManifest(args.manifest);
      else if (args.manifest !== undefined && args.manifest !== false) {
        throw new GirihError("bad-argument", "`manifest` is for models from a URL; check files with `integrity`");
      }
      const watched = new WatchedSource(source);
      const { context, weights, activations, keyValues, chatTemplate, expertMemory, expertEviction, expertPrefetch } = args;
      const selfTest = this.#tested !== null;
      const options = {
        context, weights, activations, keyValues, chatTemplate, expertMemory, expertEviction, expertPrefetch, selfTest,
      };
      const live = this.#live();
      const engine = await live
        .loadModel(watched, options, (stage, done, total) => emit(stage === "self-test" ? { stage } : { stage, done, total }))
        .catch((thrown: unknown) => {
          // What the source said is more than what the engine makes of it.
          if (over.aborted) throw over.reason;
          if (watched.failure !== undefined) throw watched.failure;
          const { code, message } = GirihError.from(thrown);
          const { input } = args;
          throw code === "not-found" && input.kind === "url" ? new GirihError(code, `${message} (looked in ${input.url})`) : thrown;
        });
      await this.#remember(live);
      const close = () => {
        if (keeps) http?.close();
      };
      const model: HostModel = { engine, session: null, turn: Promise.resolve(), released: false, source: watched, close };
      try {
        over.throwIfAborted();
        await this.#verify(source, manifest, integrity, emit, over);
        const info = { ...engine.info(), name: nameOf(args.input) };
        if (!info.isEncoder) model.session = engine.session();
        if (!keeps) await http?.complete(); // experts that nobody has chosen are not here
        over.throwIfAborted();
        for (const note of info.notes) this.#listener.notice({ code: "model-note", message: `${info.name}: ${note}` });
        const id = this.#nextModel++;
        this.#models.set(id, model);
        emit({ stage: "ready" });
        kept = keeps;
        return { model: id, info };
      } catch (thrown) {
        if (!this.#trapped()) free(model);
        throw thrown;
      }
    } finally {
      over.removeEventListener("abort", end);
      if (!kept) http?.close();
    }
  }

  async #source(args: LoadArgs, onProgress: (event: ProgressEvent) => void, signal: AbortSignal): Promise<ModelSource> {
    const { input, headers, cache } = args;
    if (cache === "require" && input.kind !== "url") throw noCache("only downloads are cached");
    switch (input.kind) {
      case "url":
        return HttpSource.open(input.url, { headers, cache, store: this.#store, signal, onProgress });
      case "files":
        return new FilesSource(input.files);
      case "folder":
        return FilesSource.ofFolder(input.folder);
      case "source":
        return input.source;
      case "remote":
        throw new GirihError("internal", "a remote source without its proxy");
    }
  }

  /** Hashes whole files: those that the caller named, and those of which the manifest has no hashes of blocks. */
  async #verify(
    source: ModelSource, manifest: Manifest | null, integrity: [string, string][],
    emit: (event: ProgressEvent) => void, signal: AbortSignal,
  ): Promise<void> {
    const wanted = new Map<string, string>();
    if (source instanceof HttpSource && manifest !== null) {
      // What lay in the cache was checked before it was kept as complete.
      for (const [file, isNew] of await source.opened()) {
        const entry = manifest.files[file];
        if (isNew && entry !== undefined && entry.blocks === undefined) wanted.set(file, entry.sha256);
      }
    }
    for (const [file, hash] of integrity) wanted.set(file, hash);
    const sizes = new Map<string, number>();
    for (const file of wanted.keys()) {
      const size = await source.size(file);
      if (size === null) throw new GirihError("integrity", `${file} is not there, but its hash was given`);
      sizes.set(file, size);
    }
    const total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
    let done = 0;
    for (const [file, hash] of wanted) {
      const size = sizes.get(file) ?? 0;
      const hasher = new (this.#module as EngineModule).Sha256();
      let found: string;
      try {
        for (let at = 0; at < size; at += HASH_BYTES) {
          signal.throwIfAborted();
          const end = Math.min(size, at + HASH_BYTES);
          hasher.update(await source.read(file, at, end));
          done += end - at;
          emit({ stage: "verify", done, total });
        }
        found = hasher.hex();
      } finally {
        hasher.free();
      }
      if (found === hash) continue;
      if (source instanceof HttpSource) await source.discard(file);
      throw new GirihError("integrity", `${file} (${size} bytes): sha256 is ${found}, expected ${hash}`);
    }
  }

  async #release(id: number): Promise<void> {
    const model = this.#models.get(id);
    if (model === undefined) return;
    this.#models.delete(id);
    model.released = true;
    for (const [run, { model: owner }] of this.#runs) if (owner === model) this.#stop(run);
    await model.turn;
    free(model);
  }

  /** Does something with a model when what was asked of it before is done. */
  #inTurn<T>(model: HostModel, work: (model: HostModel) => Promise<T>): Promise<T> {
    const done = model.turn.then(() => {
      if (model.released) throw new GirihError("disposed", "the model was disposed");
      model.source.takeFailure(); // of a guess that failed and was not needed
      return work(model).catch((thrown: unknown) => {
        const failure = model.source.takeFailure();
        if (failure === undefined) throw thrown;
        // The engine says which expert, the source what kind of failure, if it knows one.
        const [{ code, message }, known] = [GirihError.from(thrown), GirihError.from(failure).code];
        throw new GirihError(known === "internal" ? code : known, message, { cause: failure });
      });
    });
    model.turn = done.then(() => undefined, () => undefined);
    return done;
  }

  async #generate(args: GenerateArgs, emit: (text: string) => void, signal: AbortSignal): Promise<GenerateResult> {
    const model = this.#model(args.model);
    const run: Run = { model, stopped: false, session: null };
    this.#runs.set(args.run, run);
    const stop = () => this.#stop(args.run);
    signal.addEventListener("abort", stop, { once: true });
    try {
      return await this.#inTurn(model, async ({ session }) => {
        if (session === null) throw new GirihError("bad-argument", "the model is an encoder: it makes vectors (embed), not text");
        if (run.stopped) return nothing();
        run.session = session;
        const onText = (text: string) => {
          if (text !== "") emit(text);
          return !run.stopped;
        };
        const { input, options } = args;
        return "messages" in input
          ? await session.chat(input.messages, options, onText)
          : await session.generate(input.prompt, options, onText);
      });
    } finally {
      signal.removeEventListener("abort", stop);
      this.#runs.delete(args.run);
    }
  }

  #stop(id: number): void {
    const run = this.#runs.get(id);
    if (run === undefined || run.stopped) return;
    run.stopped = true;
    if (run.session !== null && !this.#trapped()) run.session.cancel();
  }
}

/** A generation that was cancelled before its turn. */
function nothing(): GenerateResult {
  return {
    text: "", tokenIds: new Uint32Array(), finish: "cancelled", promptTokens: 0, cachedTokens: 0, prefillSeconds: 0,
    decodeSeconds: 0, tokensPerSecond: 0, dispatchesPerToken: 0, pipelinesCreated: 0, experts: null,
  };
}

/** What a model is called: the last part of where it is from. */
function nameOf(input: Input): string {
  switch (input.kind) {
    case "url":
      return decodeURIComponent(new URL(input.url).pathname.split("/").filter((part) => part !== "").pop() ?? input.url);
    case "files": {
      const path = input.files[0]?.path ?? "";
      return path.slice(0, Math.max(path.indexOf("/"), 0)) || path;
    }
    case "folder":
      return input.folder.name;
    default:
      return "model";
  }
}

function free({ session, engine, close }: HostModel): void {
  close();
  session?.free();
  engine.free();
}

/** Remembers the first failure of a source, which the engine knows as text only. */
class WatchedSource implements ModelSource {
  readonly #source: ModelSource;
  failure: unknown = undefined;
  list?: () => string[];

  constructor(source: ModelSource) {
    this.#source = source;
    if (source.list !== undefined) this.list = () => source.list?.() ?? [];
  }

  size(file: string): Promise<number | null> {
    return this.#watch(() => this.#source.size(file));
  }

  read(file: string, start: number, end: number): Promise<Uint8Array> {
    return this.#watch(() => this.#source.read(file, start, end));
  }

  /** The failure, once. */
  takeFailure(): unknown {
    const { failure } = this;
    this.failure = undefined;
    return failure;
  }

  async #watch<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      this.failure ??= thrown;
      throw thrown;
    }
  }
}

/** The proxy of a source takes the place of its number. */
export function withSource(args: LoadArgs, proxy: (id: number, list: string[] | null) => ModelSource): LoadArgs {
  const input: Input = args.input;
  return input.kind === "remote" ? { ...args, input: { kind: "source", source: proxy(input.id, input.list) } } : args;
}
