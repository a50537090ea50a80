// What a screen reader hears: whole sentences of a stream, not each token.

import { byId } from "./dom.js";

const region = byId("announcer", HTMLElement);
let turn = false;

/** Says a text once the reader is free. */
export function announce(text: string): void {
  // A line that is said twice must differ, or it is not said again.
  turn = !turn;
  region.textContent = turn ? text : `${text}\u00a0`;
}

/** Cuts a stream into sentences and announces them, at most one piece every two seconds. */
export class SentenceAnnouncer {
  #waiting = "";
  #last = 0;

  /** The next piece of the stream. */
  push(text: string): void {
    this.#waiting += text;
    if (performance.now() - this.#last < 2000) {
      return;
    }
    const end = this.#lastSentenceEnd();
    if (end > 0) {
      this.#say(this.#waiting.slice(0, end));
      this.#waiting = this.#waiting.slice(end);
    }
  }

  /** Says what is left, and how it ended. */
  end(how: string): void {
    this.#say(`${this.#waiting} ${how}`);
    this.#waiting = "";
  }

  #lastSentenceEnd(): number {
    let end = 0;
    for (const match of this.#waiting.matchAll(/[.!?…]["'”’)]*\s|\n/gu)) {
      end = match.index + match[0].length;
    }
    return end;
  }

  #say(text: string): void {
    if (text.trim() !== "") {
      announce(text.trim());
      this.#last = performance.now();
    }
  }
}
