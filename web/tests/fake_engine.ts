// A made-up engine module: it reads files and writes words, and does what the real one must never do when it is told to.
// For tests of messages only.
import type { Engine, EngineModel, EngineModule, EngineSession, OnText, SamplingOptions } from "../girih/engine.js";
import type { Caps, GenerateResult, Message, ModelInfo, ModelSource, TuneRow } from "../girih/types.js";

const CAPS: Caps = {
  tier: "t0", adapter: "made up", architecture: "none", isCpu: true, subgroups: null, f16: false, packedDot: false,
  timestamps: false, workgroupBytes: 16384, invocations: 256, bindingBytes: 1 << 27, bufferBytes: 1 << 28, storageBuffers: 8, tuned: 0,
};

const INFO: ModelInfo = {
  name: "made up", modelType: "words", layers: 1, hiddenSize: 1, vocabSize: 1, context: 1 << 20, maxContext: 1 << 20, weightBytes: 0,
  cacheBytes: 0, parameters: 0, isEncoder: false, hasChatTemplate: true, notes: [], unusedTensors: [],
};

let panic: string | undefined;

/** Hash of the shaders: what the URL of the worker says. */
const shaders = new URL(globalThis.location.href).searchParams.get("shaders") ?? "made up";

/** The next task: as the real engine waits for the device. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

class FakeSession implements EngineSession {
  #cancelled = false;
  readonly #lose: (reason: string) => void;

  constructor(lose: (reason: string) => void) {
    this.#lose = lose;
  }

  async generate(prompt: string | Uint32Array, options: SamplingOptions, onText: OnText): Promise<GenerateResult> {
    this.#cancelled = false;
    const { maxTokens = 10 } = options;
    if (prompt === "panic") {
      panic = "panicked at 'made up'";
      throw new WebAssembly.RuntimeError("unreachable");
    }
    if (prompt === "lose") this.#lose("unknown");
    if (prompt === "fail") throw Object.assign(new Error("found 5 tokens, wanted at most 4"), { code: "prompt-too-long" });
    const tokenIds: number[] = [];
    let text = "";
    let finish: GenerateResult["finish"] = "length";
    while (tokenIds.length < maxTokens) {
      await turn();
      const word = `${String(prompt)}${tokenIds.length} `;
      if (this.#cancelled) {
        finish = "cancelled";
        break;
      }
      tokenIds.push(tokenIds.length);
      text += word;
      if (!onText(word)) {
        finish = "cancelled";
        break;
      }
    }
    return {
      text, tokenIds: Uint32Array.from(tokenIds), finish, promptTokens: 1, cachedTokens: 0, prefillSeconds: 0, decodeSeconds: 0,
      tokensPerSecond: 0, dispatchesPerToken: 0, pipelinesCreated: 0, experts: null,
    };
  }

  chat(messages: Message[], options: SamplingOptions, onText: OnText): Promise<GenerateResult> {
    return this.generate(messages.map(({ content }) => content).join("+"), options, onText);
  }

  cancel(): void {
    this.#cancelled = true;
  }

  free(): void {}
}

class FakeEngine implements Engine {
  #onLost: (reason: string, message: string) => void = () => undefined;

  caps(): Caps {
    return { ...CAPS, tuned: this.#winners.split("\n").length - 2 };
  }

  counters() {
    return { pipelines: 0, bindGroups: 0, buffers: 0, submits: 0, dispatches: 0 };
  }

  onLost(callback: (reason: string, message: string) => void): void {
    this.#onLost = callback;
  }

  #verdict: { right: string[]; wrong: string[] } = { right: [], wrong: [] };

  verdict() {
    return this.#verdict;
  }

  learn(right: string[], wrong: string[]): void {
    this.#verdict = { right, wrong };
  }

  /** Reads `model.bin` in pieces of 1 MiB. */
  async loadModel(
    source: ModelSource, options: { selfTest?: boolean },
    onProgress: (stage: "self-test" | "weights" | "pipelines", done: number, total: number) => void,
  ) {
    if (options.selfTest === true && this.#verdict.wrong.length === 0) {
      onProgress("self-test", 0, 1);
      this.#verdict = { right: ["made-up/other"], wrong: ["made-up/kernel"] };
    }
    const file = source.list?.()[0] ?? "model.bin";
    const size = await source.size(file);
    if (size === null) throw Object.assign(new Error(`no ${file}`), { code: "not-found" });
    for (let at = 0; at < size; at += 1 << 20) {
      const bytes = await source.read(file, at, Math.min(size, at + (1 << 20)));
      onProgress("weights", at + bytes.length, size);
    }
    const session = new FakeSession((reason) => this.#onLost(reason, "made up"));
    const model: EngineModel = {
      info: () => ({ ...INFO, weightBytes: size }),
      session: () => session,
      tokenize: (text) => Uint32Array.from(text, (c) => c.codePointAt(0) ?? 0),
      detokenize: (ids) => String.fromCodePoint(...ids),
      routing: async (ids) => ({ layers: [{ layer: 0, experts: 2, routes: Array.from(ids, (id): [number, number][] => [[id % 2, 1]]) }] }),
      embed: async (texts) => texts.map((text) => Float32Array.of(text.length)),
      free: () => undefined,
    };
    return model;
  }

  #winners = "girih measured winners: 0\n";

  winners() {
    return this.#winners;
  }

  useWinners(text: string): boolean {
    const isOurs = text.startsWith("girih measured winners: ");
    if (isOurs) this.#winners = text;
    return isOurs;
  }

  /** Finds one winner, unless it has it already. */
  async tune(model: EngineModel, seconds: number, onRow: (row: TuneRow) => boolean) {
    const before = this.#winners.includes("made-up/1x1 quick") ? "quick" : "usual";
    const row: TuneRow = {
      kernel: "made-up", data: "", shape: "1x1", rule: "usual", ruleMs: 2, winner: "quick", winnerMs: 1, before, timed: 2, wrong: [],
    };
    if (model.info().weightBytes < 0 || seconds === 0) return { seconds, rows: [], left: ["made-up/1x1"], winners: 0 };
    this.#winners = "girih measured winners: 1\nmade-up/1x1 quick\n";
    onRow(row);
    return { seconds: 0.5, rows: [row], left: [], winners: 1 };
  }

  async bench(): Promise<never> {
    throw new Error("nothing to time");
  }

  destroy(): void {}
  free(): void {}
}

export const fakeEngine: EngineModule = {
  default: async () => undefined,
  Engine: { create: async () => new FakeEngine() },
  Sha256: class {
    update(): void {}
    hex(): string {
      return "";
    }
    free(): void {}
  },
  heapBytes: () => 1,
  version: () => "made up",
  shaders: () => shaders,
  lastPanic: () => panic,
};
