// Follows a text while it is written: onto the page once per frame, into the figures, to the screen reader.

import { SentenceAnnouncer } from "./announce.js";
import { all, byId } from "./dom.js";
import * as format from "./format.js";
import type { GenerateResult, Generation } from "./girih/index.js";

const rate = byId("figure-rate", HTMLElement);
const first = byId("figure-first", HTMLElement);
const tokens = byId("figure-tokens", HTMLElement);
const prompt = byId("figure-prompt", HTMLElement);
const dispatches = byId("figure-dispatches", HTMLElement);
const pipelines = byId("figure-pipelines", HTMLElement);

const ratesBeside = all("[data-rate]");

/** The rate stands among the figures, and beside the button where those are far away. */
function showRate(tokensPerSecond: number): void {
  rate.textContent = format.significant(tokensPerSecond);
  ratesBeside.forEach((place) => (place.textContent = `${rate.textContent} tokens per second`));
}

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

/** How far the end of `node` is below the window; its `scroll-margin` counts. */
function below(node: HTMLElement): number {
  const margin = Number.parseFloat(getComputedStyle(node).scrollMarginBottom) || 0;
  return node.getBoundingClientRect().bottom + margin - innerHeight;
}

/**
 * Appends the text to `into` as it comes, until it ends or `signal` stops it; then the result says so. While the end of
 * `within` is in the window, the window follows it.
 */
export async function follow(
  generation: Generation,
  into: Text,
  within: HTMLElement,
  signal: AbortSignal,
): Promise<GenerateResult> {
  const before = into.data;
  const started = performance.now();
  const announcer = new SentenceAnnouncer();
  let waiting = "";
  let pieces = 0;
  let firstAt = 0;
  let frame = 0;

  [rate, tokens, prompt, dispatches, pipelines].forEach((figure) => (figure.textContent = "–"));
  ratesBeside.forEach((place) => (place.textContent = ""));
  first.textContent = "…";

  const paint = (): void => {
    frame = 0;
    const follows = below(within) < 40;
    into.appendData(waiting);
    waiting = "";
    tokens.textContent = format.count(pieces);
    const elapsed = (performance.now() - firstAt) / 1000;
    if (pieces > 2 && elapsed > 0.1) {
      showRate((pieces - 1) / elapsed);
    }
    if (follows) {
      scrollBy(0, Math.max(0, below(within)));
    }
  };

  const iterator = generation[Symbol.asyncIterator]();
  // Leaving the iteration stops the model, and the result has the numbers of what was written.
  const stop = (): void => void iterator.return?.();
  signal.addEventListener("abort", stop);
  try {
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
      const text = next.value;
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
    waiting = "";
    into.data = before + result.text;
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
    signal.removeEventListener("abort", stop);
    cancelAnimationFrame(frame);
    if (waiting !== "") {
      into.appendData(waiting);
    }
  }
}

function showResult(result: GenerateResult): void {
  showRate(result.tokensPerSecond);
  tokens.textContent = format.count(result.tokenIds.length);
  const cached = result.cachedTokens === 0 ? "" : `, ${format.count(result.cachedTokens)} known already`;
  prompt.textContent = `${format.plural(result.promptTokens, "token")}${cached}`;
  dispatches.textContent = format.significant(result.dispatchesPerToken);
  pipelines.textContent = format.count(result.pipelinesCreated);
}
