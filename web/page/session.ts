// The engine and the one model of the page: what state they are in, and everything that changes it.

import { codeOf, isAbort } from "./errors.js";
import { Girih } from "./girih/index.js";
import type { LoadOptions, LostEvent, Model, ModelInput, Notice, ProgressEvent, Tier } from "./girih/index.js";
import { settings } from "./store.js";

/** Where a model comes from. */
export interface Source {
  label: string;
  input: ModelInput;
  builtIn: boolean;
}

/** How a model is loaded. */
export type Choices = Pick<LoadOptions, "context" | "weights" | "activations">;

/** What the browser offers. */
export type Support = Awaited<ReturnType<typeof Girih.support>>;

/** The state of engine and model. */
export type Phase =
  | "starting" // the engine is being made
  | "unsupported" // no WebGPU, or no adapter
  | "failed" // the engine could not be made for another reason
  | "idle" // an engine without a model
  | "loading"
  | "ready"
  | "lost" // the device is gone; `rebuild` makes a new one
  | "rebuilding";

/** The story model that is served beside the page. */
export const BUILT_IN: Source = {
  label: "fable-5m",
  input: new URL("./models/fable-5m/", document.baseURI),
  builtIn: true,
};

/** A mixture of experts that tells the same kind of stories, served beside it. */
export const MIXTURE: Source = {
  label: "fable-moe",
  input: new URL("./models/fable-moe/", document.baseURI),
  builtIn: true,
};

const TIERS: readonly Tier[] = ["t0", "t1", "t2", "t3", "t4"];

function tierOf(name: string): Tier | undefined {
  return TIERS.find((tier) => tier === name);
}

/** The visitor asked to save data: then nothing is downloaded without a click. */
function savesData(): boolean {
  const { connection } = navigator as Navigator & { connection?: { saveData?: boolean } };
  return connection?.saveData === true;
}

/** Engine, model and what runs on them. Views read the fields and hear of changes. */
export class Session {
  phase: Phase = "starting";
  girih: Girih | null = null;
  model: Model | null = null;
  support: Support | null = null;
  /** Of the loaded model, the one being loaded, or the one that failed. */
  source: Source | null = null;
  /** Why the last start, load or rebuild failed. */
  failure: unknown = null;
  /** Why the device is gone. */
  loss: LostEvent | null = null;
  /** What runs on the engine now. */
  activity: "write" | "bench" | null = null;

  #choices: Choices = {};
  #loading: AbortController | null = null;
  #settled: Promise<void> = Promise.resolve();
  #running: { controller: AbortController; ended: Promise<unknown> } | null = null;
  readonly #changed = new Set<() => void>();
  readonly #progressed = new Set<(event: ProgressEvent) => void>();
  readonly #noticed = new Set<(notice: Notice) => void>();

  /** Calls `listener` now and after each change. */
  onChange(listener: () => void): void {
    this.#changed.add(listener);
    listener();
  }

  /** Calls `listener` with each step of starting and loading. */
  onProgress(listener: (event: ProgressEvent) => void): void {
    this.#progressed.add(listener);
  }

  /** Calls `listener` with each notice. */
  onNotice(listener: (notice: Notice) => void): void {
    this.#noticed.add(listener);
  }

  /** Makes the engine and loads the model that was there before, or the built-in one. */
  async start(): Promise<void> {
    this.failure = null;
    this.loss = null;
    this.#enter("starting");
    try {
      this.support = await Girih.support();
      const maxTier = tierOf(settings.tier);
      const girih = await Girih.create({
        ...(maxTier === undefined ? {} : { maxTier }),
        onProgress: (event) => this.#progress(event),
        onNotice: (notice) => this.#noticed.forEach((listener) => listener(notice)),
        onLost: (event) => this.#lose(event),
      });
      this.girih = girih;
    } catch (failure) {
      this.failure = failure;
      const code = codeOf(failure);
      this.#enter(code === "no-webgpu" || code === "no-adapter" ? "unsupported" : "failed");
      return;
    }
    if (this.source === null && savesData()) {
      this.#enter("idle");
      return;
    }
    await this.load(this.source ?? BUILT_IN, this.#choices);
  }

  /** Throws the engine away and makes another one, with the settings of now. */
  async restart(): Promise<void> {
    await this.stop();
    this.cancelLoad();
    await this.#settled;
    const girih = this.girih;
    this.girih = null;
    this.model = null;
    await girih?.dispose().catch(() => undefined); // it may be dead already
    await this.start();
  }

  /** Loads a model in the place of the one that is there. */
  async load(source: Source, choices: Choices): Promise<void> {
    this.cancelLoad();
    const loading = new AbortController();
    this.#loading = loading;
    const before = this.#settled;
    this.#settled = before.then(() => this.#load(source, choices, loading));
    await this.#settled;
  }

  async #load(source: Source, choices: Choices, loading: AbortController): Promise<void> {
    const girih = this.girih;
    if (girih === null || loading.signal.aborted) {
      return;
    }
    await this.stop();
    const previous = this.model;
    this.model = null;
    this.source = source;
    this.#choices = choices;
    this.failure = null;
    this.#enter("loading");
    try {
      await previous?.dispose(); // first: the memory of both may not be there
      const onProgress = (event: ProgressEvent): void => this.#progress(event);
      this.model = await girih.loadModel(source.input, { ...choices, signal: loading.signal, onProgress });
      this.#enter("ready");
    } catch (failure) {
      this.failure = isAbort(failure) ? null : failure;
      this.#suspect(failure);
      if (this.loss === null) {
        this.#enter("idle");
      }
    }
    this.#loading = null;
  }

  /** Gives up the load that is running. */
  cancelLoad(): void {
    this.#loading?.abort();
  }

  /** A new device after a loss, with the model on it. */
  async rebuild(): Promise<void> {
    const girih = this.girih;
    if (girih === null) {
      await this.restart();
      return;
    }
    this.failure = null;
    this.#enter("rebuilding");
    try {
      await girih.rebuild();
      this.loss = null;
    } catch (failure) {
      this.failure = failure;
      this.#enter("lost");
      return;
    }
    if (this.model !== null || this.source === null) {
      this.#enter(this.model === null ? "idle" : "ready");
    } else {
      await this.load(this.source, this.#choices);
    }
  }

  /** Runs `work` on the engine, after stopping what runs there. */
  async run<T>(activity: "write" | "bench", work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    await this.stop();
    const controller = new AbortController();
    const result = work(controller.signal);
    const running = { controller, ended: result.catch(() => undefined) };
    this.#running = running;
    this.activity = activity;
    this.#enter(this.phase);
    try {
      return await result;
    } catch (failure) {
      this.#suspect(failure);
      throw failure;
    } finally {
      if (this.#running === running) {
        this.#running = null;
        this.activity = null;
      }
      this.#enter(this.phase);
    }
  }

  /** Stops what runs on the engine and waits for its end. */
  async stop(): Promise<void> {
    const running = this.#running;
    running?.controller.abort();
    await running?.ended;
  }

  #progress(event: ProgressEvent): void {
    this.#progressed.forEach((listener) => listener(event));
  }

  /** Some failures are the end of the engine. */
  #suspect(failure: unknown): void {
    const code = codeOf(failure);
    if ((code === "internal" || code === "device-lost") && this.loss === null) {
      this.#lose({ reason: code, message: failure instanceof Error ? failure.message : String(failure) });
    }
  }

  #lose(event: LostEvent): void {
    if (this.phase === "starting") {
      return; // an engine that was just thrown away
    }
    this.loss = event;
    this.#enter("lost");
  }

  #enter(phase: Phase): void {
    this.phase = phase;
    this.#changed.forEach((listener) => listener());
  }
}
