// What went wrong, in one plain sentence, and what to do about it.

import { element } from "./dom.js";
import { GirihError } from "./girih/index.js";
import type { ErrorCode } from "./girih/index.js";

/** One sentence of what happened, one of what to do. */
interface Explanation {
  what: string;
  todo: string;
}

const EXPLANATIONS: Record<ErrorCode, Explanation> = {
  "no-webgpu": {
    what: "This browser has no WebGPU.",
    todo: "Open the page in a browser that has it.",
  },
  "no-adapter": {
    what: "The browser found no graphics processor that this page may use.",
    todo: "Turn on graphics acceleration in the browser’s settings, update the graphics driver, and reload.",
  },
  "device-too-small": {
    what: "This device cannot hold a part of the model.",
    todo: "Choose a smaller model, weights int8 or int4, or a shorter context.",
  },
  "device-lost": {
    what: "The browser took the graphics processor away.",
    todo: "Rebuild it with the button at the top of the page.",
  },
  "out-of-memory": {
    what: "There is not enough memory for this.",
    todo: "Close other tabs, choose weights int8 or int4, or a shorter context.",
  },
  "not-found": {
    what: "A file of the model is not there.",
    todo: "Check the address: it must be the folder that holds config.json, or one .gguf file.",
  },
  network: {
    what: "The download broke off, also when it was tried again.",
    todo: "Load it once more: it goes on from where it stopped.",
  },
  "blocked-by-cors": {
    what: "The other server cannot be reached, or does not let this page read from it.",
    todo: "It must send Access-Control-Allow-Origin. Or download the model and open the folder from this computer.",
  },
  "range-unsupported": {
    what: "The server sends whole files only, and this one is too large for that.",
    todo: "Use another server, or download the model and open it from this computer.",
  },
  integrity: {
    what: "A file is not what its checksum says.",
    todo: "Its copy was thrown away. Load again; if it stays so, the file on the server is damaged.",
  },
  "malformed-model": {
    what: "A file of the model cannot be read: it is damaged or not what its name says.",
    todo: "Get the model once more from where it comes from.",
  },
  "unsupported-model": {
    what: "girih does not know this kind of model.",
    todo: "Choose another one; the details say what was found.",
  },
  "prompt-too-long": {
    what: "The text is longer than the model’s context.",
    todo: "Shorten it, clear the conversation, or load the model with a longer context.",
  },
  "bad-argument": {
    what: "A setting has a value that does not work.",
    todo: "The details say which, and what it may be.",
  },
  busy: {
    what: "The engine is still at work on something else.",
    todo: "Wait until that has ended, or stop it.",
  },
  disposed: {
    what: "The model or the engine was closed meanwhile.",
    todo: "Load the model again.",
  },
  quota: {
    what: "The browser’s storage has no room for the model.",
    todo: "Remove other models from the cache.",
  },
  internal: {
    what: "girih made a mistake and had to stop.",
    todo: "Start the engine again with the button at the top. If it happens again, the details help to report it.",
  },
};

/** The error code; undefined for what is not girih's. */
export function codeOf(failure: unknown): ErrorCode | undefined {
  return failure instanceof GirihError ? failure.code : undefined;
}

/** Whether it is the end of something that the visitor stopped. */
export function isAbort(failure: unknown): boolean {
  return failure instanceof DOMException && failure.name === "AbortError";
}

function explain(failure: unknown): Explanation {
  const code = codeOf(failure);
  return (
    (code === undefined ? undefined : EXPLANATIONS[code]) ?? {
      what: "Something failed that this page did not expect.",
      todo: "Try again, or reload the page.",
    }
  );
}

/** The failure in one line. */
export function sentence(failure: unknown): string {
  return explain(failure).what;
}

/** Shows a failure in `box` with what to do and the details; `null` hides the box. */
export function showFailure(box: HTMLElement, failure: unknown, actions: readonly HTMLElement[] = []): void {
  box.hidden = failure === null;
  if (failure === null) {
    box.replaceChildren();
    return;
  }
  const { what, todo } = explain(failure);
  const message = failure instanceof Error ? failure.message : String(failure);
  const code = codeOf(failure);
  box.replaceChildren(
    element("p", { class: "failure-what" }, what),
    element("p", {}, todo),
    element(
      "details",
      {},
      element("summary", {}, "Details"),
      element("p", { class: "failure-detail" }, code === undefined ? message : `${code}: ${message}`),
    ),
  );
  if (actions.length > 0) {
    box.append(element("div", { class: "actions" }, ...actions));
  }
}
