// A text that is being written, as an async iterator.
import type { GenerateResult, Generation } from "./types.js";

/** What starts and stops the generation behind a {@link TextStream}. */
export interface Writer {
  /** Begins, and calls back with each piece. */
  write(onText: (text: string) => void): Promise<GenerateResult>;
  /** Ends it early. */
  stop(): void;
}

export class TextStream implements Generation, AsyncIterableIterator<string> {
  readonly result: Promise<GenerateResult>;
  readonly #stop: () => void;
  /** Pieces that nobody has read yet, joined. */
  #text = "";
  #state: "writing" | "done" | "failed" = "writing";
  #error: unknown = undefined;
  #iterated = false;
  /** Those who wait for a piece. */
  #waiting: (() => void)[] = [];

  constructor(writer: Writer) {
    this.#stop = () => writer.stop();
    this.result = writer.write((text) => {
      if (this.#state !== "writing") return;
      this.#text += text;
      this.#wake();
    });
    this.result.then(() => this.#end("done"), (thrown: unknown) => this.#end("failed", thrown));
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<string> {
    if (this.#iterated) throw new TypeError("a generation can be iterated over once");
    this.#iterated = true;
    return this;
  }

  async next(): Promise<IteratorResult<string, undefined>> {
    while (this.#text === "" && this.#state === "writing") {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#text !== "") {
      const value = this.#text;
      this.#text = "";
      return { done: false, value };
    }
    if (this.#state === "failed") {
      const error = this.#error;
      this.#state = "done"; // an iterator fails once
      throw error;
    }
    return { done: true, value: undefined };
  }

  /** Called by `break`. */
  return(): Promise<IteratorResult<string, undefined>> {
    if (this.#state === "writing") {
      this.#state = "done";
      this.#stop();
      this.#wake();
    }
    this.#text = "";
    return Promise.resolve({ done: true, value: undefined });
  }

  #end(state: "done" | "failed", error?: unknown): void {
    if (this.#state !== "writing") return;
    this.#state = state;
    this.#error = error;
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
