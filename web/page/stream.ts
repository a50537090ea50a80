// Follows a text while it is written: onto the page once per frame, into the figures, to the screen reader.

import { SentenceAnnouncer } from "./announce.js";
import { byId } from "./dom.js";
import * as format from "./format.js";
import type { GenerateResult, Generation } from "./girih/index.js";

const rate = byId("figure-rate", HTMLElement);
const first = byId("figure-first", HTMLElement);
const tokens = byId("figure-tokens", HTMLElement);
const prompt = byId("figure-prompt", HTMLElement);
const dispatches = byId("figure-dispatches", HTMLElement);
const pipelines = byId("figure-pipelines", HTMLElement);

/** How a text ended, in words. */
export function ending(result: GenerateResult, context: number): string {
  switch (result.finish) {
    case "stop":
      return "The model ended here.";
    case "length":
      return `Stopped at the limit of ${format.plural(result.tokenIds.length, "token")}.`;
    case "context":
      return `The model’s context of ${format.count(context)} tokens is full.`;
    case "cancelled":
      return "Stopped.";
  }
}

/** The page is scrolled to its end: then it follows the text. */
function atEnd(): boolean {
  const page = document.documentElement;
  return page.scrollHeight - page.clientHeight - page.scrollTop < 80;
}

/** Appends the text to `into` as it comes; what went before it may be given, and is announced with it. */
export async function follow(generation: Generation, into: Text): Promise<GenerateResult> {
  const started = performance.now();
  const announcer = new SentenceAnnouncer();
  let waiting = "";
  let pieces = 0;
  let firstAt = 0;
  let frame = 0;

  [rate, tokens, prompt, dispatches, pipelines].forEach((figure) => (figure.textContent = "–"));
  first.textContent = "…";

  const paint = (): void => {
    frame = 0;
    const follows = atEnd();
    into.appendData(waiting);
    waiting = "";
    tokens.textContent = format.count(pieces);
    const elapsed = (performance.now() - firstAt) / 1000;
    if (pieces > 2 && elapsed > 0.1) {
      rate.textContent = format.significant((pieces - 1) / elapsed);
    }
    if (follows) {
      document.documentElement.scrollTop = document.documentElement.scrollHeight;
    }
  };

  try {
    for await (const text of generation) {
      if (pieces === 0) {
        firstAt = performance.now();
        first.textContent = format.seconds((firstAt - started) / 1000);
      }
      pieces += 1;
      waiting += text;
      announcer.push(text);
      frame ||= requestAnimationFrame(paint);
    }
    const result = await generation.result;
    showResult(result);
    announcer.end(result.finish === "cancelled" ? "Stopped." : "End of the text.");
    return result;
  } catch (failure) {
    if (pieces === 0) {
      first.textContent = "–";
    }
    announcer.end("Stopped.");
    throw failure;
  } finally {
    cancelAnimationFrame(frame);
    if (waiting !== "") {
      into.appendData(waiting);
    }
  }
}

function showResult(result: GenerateResult): void {
  rate.textContent = format.significant(result.tokensPerSecond);
  tokens.textContent = format.count(result.tokenIds.length);
  const cached = result.cachedTokens === 0 ? "" : `, ${format.count(result.cachedTokens)} known already`;
  prompt.textContent = `${format.plural(result.promptTokens, "token")}${cached}`;
  dispatches.textContent = format.significant(result.dispatchesPerToken);
  pipelines.textContent = format.count(result.pipelinesCreated);
}
