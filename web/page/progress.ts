// The stages of starting and loading: what is done, what is going on, how far it is.

import { announce } from "./announce.js";
import { element } from "./dom.js";
import * as format from "./format.js";
import type { ProgressEvent } from "./girih/index.js";

/** A stage with its words and how far it is. */
interface Stage {
  title: string;
  detail: string;
  /** From 0 to 1; `null` while nobody knows. */
  done: number | null;
  /** The part of it that came from the cache. */
  cached: number;
}

const TITLES: Record<Exclude<ProgressEvent["stage"], "ready">, string> = {
  engine: "Start the engine",
  "self-test": "Test the kernels on this device",
  download: "Read the files",
  weights: "Put the weights on the graphics processor",
  pipelines: "Compile the kernels",
  verify: "Check the files",
};

/** Collects the events of one start or load. */
export class Progress {
  readonly #stages = new Map<string, Stage>();
  readonly #files = new Map<string, { loaded: number; total: number; fromCache: number }>();
  #current = "";

  /** Forgets everything: another load begins. */
  clear(): void {
    this.#stages.clear();
    this.#files.clear();
    this.#current = "";
  }

  /** Takes in an event. */
  add(event: ProgressEvent): void {
    if (event.stage === "ready") {
      this.#current = "";
      return;
    }
    if (event.stage !== this.#current && !this.#stages.has(event.stage)) {
      announce(TITLES[event.stage]);
    }
    this.#current = event.stage;
    this.#stages.set(event.stage, this.#stage(event));
  }

  #stage(event: Exclude<ProgressEvent, { stage: "ready" }>): Stage {
    const title = TITLES[event.stage];
    switch (event.stage) {
      case "engine":
        return { title, detail: "", done: null, cached: 0 };
      case "self-test":
        return { title, detail: "once for each device", done: null, cached: 0 };
      case "download":
        return this.#download(event, title);
      case "pipelines":
        return { title, detail: `${format.count(event.done)} of ${format.count(event.total)}`, ...part(event) };
      default:
        return { title, detail: format.bytesOf(event.done, event.total), ...part(event) };
    }
  }

  #download(event: Extract<ProgressEvent, { stage: "download" }>, title: string): Stage {
    this.#files.set(event.file, event);
    let [loaded, total, fromCache] = [0, 0, 0];
    for (const file of this.#files.values()) {
      loaded += file.loaded;
      total += file.total;
      fromCache += file.fromCache;
    }
    const share = fromCache === loaded ? "" : `${format.bytes(fromCache)} of it `;
    const cached = fromCache === 0 ? "" : `, ${share}from the cache`;
    return {
      title,
      detail: `${event.file}: ${format.bytesOf(loaded, total)}${cached}`,
      done: total === 0 ? null : loaded / total,
      cached: total === 0 ? 0 : fromCache / total,
    };
  }

  /** All stages so far, one below the other. */
  render(into: HTMLElement): void {
    into.replaceChildren(
      ...[...this.#stages].map(([name, stage]) => {
        const running = name === this.#current || unfinished(stage);
        const state = element("span", { class: "stage-state" }, running ? "now" : "done");
        return element(
          "div",
          { class: running ? "stage stage-running" : "stage" },
          element("p", { class: "stage-title" }, stage.title, state),
          ...(stage.done === null ? [] : [bar(stage)]),
          element("p", { class: "stage-detail" }, stage.detail),
        );
      }),
    );
  }

  /** Only the stage of now, in one line. */
  renderLine(into: HTMLElement): void {
    const stage = [...this.#stages.values()].find(unfinished) ?? this.#stages.get(this.#current);
    if (stage === undefined) {
      return;
    }
    into.replaceChildren(
      element("p", {}, element("strong", {}, stage.title), stage.detail === "" ? "" : ` ${stage.detail}`),
      ...(stage.done === null ? [] : [bar(stage)]),
    );
  }
}

/** Files are read while weights arrive: a stage is over when it is full, not when another one reports. */
function unfinished(stage: Stage): boolean {
  return stage.done !== null && stage.done < 1;
}

function part({ done, total }: { done: number; total: number }): { done: number | null; cached: number } {
  return { done: total === 0 ? null : done / total, cached: 0 };
}

function bar(stage: Stage): HTMLElement {
  const done = Math.min(1, stage.done ?? 0);
  const cached = element("span", { class: "bar-cached" });
  const rest = element("span", { class: "bar-rest" });
  cached.style.width = `${Math.min(stage.cached, done) * 100}%`;
  rest.style.width = `${Math.max(0, done - stage.cached) * 100}%`;
  const attributes = {
    class: "bar",
    role: "progressbar",
    "aria-label": stage.title,
    "aria-valuemin": 0,
    "aria-valuemax": 100,
    "aria-valuenow": Math.round(done * 100),
    "aria-valuetext": stage.detail,
  };
  return element("div", attributes, cached, rest);
}
