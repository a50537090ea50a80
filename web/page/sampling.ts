// The settings of sampling, shared by story and chat.

import { byId } from "./dom.js";
import type { GenerateOptions } from "./girih/index.js";
import { set, settings } from "./store.js";

const maxTokens = byId("max-tokens", HTMLInputElement);
const modelSampling = byId("model-sampling", HTMLInputElement);
const own = byId("own-sampling", HTMLElement);
const temperature = byId("temperature", HTMLInputElement);
const temperatureValue = byId("temperature-value", HTMLOutputElement);
const topP = byId("top-p", HTMLInputElement);
const topPValue = byId("top-p-value", HTMLOutputElement);
const newSeed = byId("new-seed", HTMLInputElement);
const seed = byId("seed", HTMLInputElement);

function show(): void {
  maxTokens.value = String(settings.maxTokens);
  modelSampling.checked = settings.modelSampling;
  temperature.value = String(settings.temperature);
  topP.value = String(settings.topP);
  own.hidden = settings.modelSampling;
  temperatureValue.value = settings.temperature.toFixed(2);
  topPValue.value = settings.topP.toFixed(2);
  newSeed.checked = settings.newSeed;
  seed.value = String(settings.seed);
  seed.readOnly = settings.newSeed;
}

/** The number in a field within its bounds; `fallback` if there is none. */
function numberIn(input: HTMLInputElement, fallback: number): number {
  const value = input.valueAsNumber;
  if (!Number.isFinite(value)) {
    return fallback;
  }
  return Math.round(Math.min(Number(input.max), Math.max(Number(input.min), value)));
}

/** Connects the form with the settings. */
export function samplingForm(): void {
  byId("sampling", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
  maxTokens.addEventListener("change", () => {
    set("maxTokens", numberIn(maxTokens, settings.maxTokens));
    show();
  });
  modelSampling.addEventListener("change", () => {
    set("modelSampling", modelSampling.checked);
    show();
  });
  temperature.addEventListener("input", () => {
    set("temperature", temperature.valueAsNumber);
    show();
  });
  topP.addEventListener("input", () => {
    set("topP", topP.valueAsNumber);
    show();
  });
  newSeed.addEventListener("change", () => {
    set("newSeed", newSeed.checked);
    show();
  });
  seed.addEventListener("change", () => {
    set("seed", numberIn(seed, settings.seed));
    show();
  });
  show();
}

/** The options for the next text. Draws a new seed if that is wanted, and shows it. */
export function generateOptions(): GenerateOptions {
  if (settings.newSeed) {
    set("seed", crypto.getRandomValues(new Uint32Array(1))[0] ?? 0);
    show();
  }
  return {
    maxTokens: settings.maxTokens,
    seed: settings.seed,
    ...(settings.modelSampling ? {} : { temperature: settings.temperature, topP: settings.topP }),
  };
}
