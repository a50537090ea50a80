// The model: where it comes from, how far it is, what it is; and the models that the browser keeps.

import { announce } from "./announce.js";
import { button, byId, element, fillFacts } from "./dom.js";
import { showFailure } from "./errors.js";
import { chooseFiles, chooseFolder, dropped } from "./files.js";
import * as format from "./format.js";
import type { ModelInfo } from "./girih/index.js";
import { Progress } from "./progress.js";
import { BUILT_IN, MIXTURE } from "./session.js";
import type { Choices, Session, Source } from "./session.js";
import { set, settings } from "./store.js";

const context = byId("context", HTMLInputElement);
const weights = byId("weights", HTMLSelectElement);
const activations = byId("activations", HTMLSelectElement);

function choices(): Choices {
  const tokens = Number(settings.context);
  return {
    ...(settings.context === "" || !Number.isFinite(tokens) ? {} : { context: Math.round(tokens) }),
    ...(settings.weights === "" ? {} : { weights: settings.weights }),
    ...(settings.activations === "" ? {} : { activations: settings.activations }),
  };
}

/** An address that is written without its scheme, or as the page of a model on Hugging Face. */
export function modelUrl(text: string): URL {
  const trimmed = text.trim();
  const isWhole = /^[a-z][a-z0-9+.-]*:\/\//i.test(trimmed) || /^[./]/.test(trimmed);
  const url = new URL(isWhole ? trimmed : `https://${trimmed}`, document.baseURI);
  if (url.hostname === "huggingface.co") {
    const [owner, name, kind, ...rest] = url.pathname.split("/").filter((part) => part !== "");
    if (owner !== undefined && name !== undefined) {
      const path = kind === undefined ? ["main"] : rest;
      url.pathname = `/${[owner, name, "resolve", ...path].join("/")}`;
    }
  }
  if (!url.pathname.endsWith(".gguf") && !url.pathname.endsWith("/")) {
    url.pathname += "/";
  }
  return url;
}

function facts(info: ModelInfo): [string, string][] {
  return [
    ["Name", info.name],
    ["Architecture", info.modelType],
    ["Parameters", format.parameters(info.parameters)],
    ["Layers", format.count(info.layers)],
    ["Width", format.count(info.hiddenSize)],
    ["Vocabulary", format.plural(info.vocabSize, "token")],
    ["Context", `${format.count(info.context)} of at most ${format.count(info.maxContext)} tokens`],
    ["Weights on the GPU", format.bytes(info.weightBytes)],
    ...(info.isEncoder ? [] : [["Cache of keys and values", format.bytes(info.cacheBytes)] as [string, string]]),
    ["Made for", info.isEncoder ? "vectors of texts" : info.hasChatTemplate ? "text and chat" : "text"],
  ];
}

function builtInButton(session: Session, words = "Load the built-in model"): HTMLButtonElement {
  return button(words, "", () => void session.load(BUILT_IN, {}));
}

/** Wires the model view. */
export function modelView(session: Session): void {
  const panel = byId("loading-panel", HTMLElement);
  const stages = byId("stages", HTMLElement);
  const failureBox = byId("model-failure", HTMLElement);
  const drop = byId("drop", HTMLElement);
  const urlInput = byId("model-url", HTMLInputElement);
  const lines = [...document.querySelectorAll<HTMLElement>("[data-loading]")];
  const progress = new Progress();

  // Where a model comes from

  async function load(source: Source): Promise<void> {
    progress.clear();
    await session.load(source, choices());
  }

  async function loadChosen(chosen: Promise<Source | null>): Promise<void> {
    try {
      const source = await chosen;
      if (source !== null) {
        await load(source);
      }
    } catch (failure) {
      showFailure(failureBox, failure);
    }
  }

  byId("url-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    let url: URL;
    try {
      url = modelUrl(urlInput.value);
    } catch {
      urlInput.setCustomValidity("This is not an address.");
      urlInput.reportValidity();
      return;
    }
    set("url", urlInput.value);
    const parts = url.pathname.split("/").filter((part) => part !== "");
    const label = url.hostname === "huggingface.co" ? parts.slice(0, 2).join("/") : (parts.at(-1) ?? url.hostname);
    void load({ label, input: url, builtIn: false });
  });
  urlInput.value = settings.url;
  urlInput.addEventListener("input", () => urlInput.setCustomValidity(""));
  byId("load-built-in", HTMLButtonElement).addEventListener("click", () => void load(BUILT_IN));
  byId("load-mixture", HTMLButtonElement).addEventListener("click", () => void load(MIXTURE));
  const folderInput = byId("folder-input", HTMLInputElement);
  const fileInput = byId("file-input", HTMLInputElement);
  byId("choose-folder", HTMLButtonElement).addEventListener("click", () => void loadChosen(chooseFolder(folderInput)));
  byId("choose-file", HTMLButtonElement).addEventListener("click", () => void loadChosen(chooseFiles(fileInput)));
  byId("load-cancel", HTMLButtonElement).addEventListener("click", () => {
    session.cancelLoad();
    announce("Loading was cancelled.");
  });

  // A file may be dropped anywhere on the page.
  const carriesFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") === true;
  addEventListener("dragover", (event) => {
    if (carriesFiles(event)) {
      event.preventDefault();
      drop.classList.add("drop-over");
    }
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) {
      drop.classList.remove("drop-over");
    }
  });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event) || event.dataTransfer === null) {
      return;
    }
    event.preventDefault();
    drop.classList.remove("drop-over");
    location.hash = "#model";
    void loadChosen(dropped(event.dataTransfer));
  });

  // How it is loaded

  context.value = settings.context;
  weights.value = settings.weights;
  activations.value = settings.activations;
  context.addEventListener("change", () => set("context", context.value));
  weights.addEventListener("change", () => set("weights", weights.value));
  activations.addEventListener("change", () => set("activations", activations.value));

  // How far it is

  let frame = 0;
  session.onProgress((event) => {
    progress.add(event);
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      progress.render(stages);
      lines.forEach((line) => progress.renderLine(line));
    });
  });

  // What it is

  let phase = session.phase;
  session.onChange(() => {
    const busy = session.phase === "starting" || session.phase === "loading" || session.phase === "rebuilding";
    if (session.phase === "starting") {
      progress.clear();
    }
    panel.hidden = !busy;
    const title =
      session.phase === "loading"
        ? `Loading ${session.source?.label ?? "a model"}`
        : session.phase === "rebuilding"
          ? "Rebuilding the device"
          : "Starting";
    byId("loading-title", HTMLElement).textContent = title;
    byId("load-cancel", HTMLButtonElement).hidden = session.phase !== "loading";
    const failed = (session.phase === "idle" || session.phase === "failed") && session.failure !== null;
    const retry = (): HTMLButtonElement[] =>
      session.phase === "failed"
        ? [button("Start again", "", () => void session.restart())]
        : session.source?.builtIn === false
          ? [builtInButton(session, "Back to the built-in model")]
          : [builtInButton(session, "Load it again")];
    showFailure(failureBox, failed ? session.failure : null, failed ? retry() : []);
    for (const line of lines) {
      line.hidden = !busy && session.phase !== "idle" && session.phase !== "failed";
      if (failed) {
        const box = element("div", { class: "failure" });
        showFailure(box, session.failure, retry());
        line.replaceChildren(box);
      } else if (session.phase === "idle") {
        const actions = element("div", { class: "actions" }, builtInButton(session));
        line.replaceChildren(element("p", {}, "No model is loaded."), actions);
      } else if (phase !== session.phase) {
        line.replaceChildren(element("p", {}, element("strong", {}, title)));
      }
    }
    showInfo(session.model?.info ?? null);
    if (phase !== session.phase && session.phase === "ready") {
      announce(`${session.model?.info.name ?? "The model"} is ready.`);
    }
    if (phase !== session.phase && !busy) {
      void showCache();
    }
    phase = session.phase;
  });

  function showInfo(info: ModelInfo | null): void {
    byId("info-none", HTMLElement).hidden = info !== null;
    fillFacts(byId("info", HTMLElement), info === null ? [] : facts(info));
    const notes = [...(info?.notes ?? [])];
    if (info !== null && info.unusedTensors.length > 0) {
      notes.push(`Not used: ${info.unusedTensors.join(", ")}.`);
    }
    const items = notes.map((note) => element("li", {}, note));
    byId("info-notes", HTMLElement).replaceChildren(
      ...(items.length === 0 ? [] : [element("h3", {}, "Notes"), element("ul", { class: "notes" }, ...items)]),
    );
  }

  // What the browser keeps

  const list = byId("cache", HTMLElement);
  const usage = byId("cache-usage", HTMLElement);
  const clear = byId("cache-clear", HTMLButtonElement);

  async function showCache(): Promise<void> {
    const cache = session.girih?.cache;
    if (cache === undefined) {
      usage.textContent = "Nothing is known before the engine has started.";
      return;
    }
    try {
      const [models, { used, quota }] = await Promise.all([cache.list(), cache.usage()]);
      usage.textContent =
        quota === 0
          ? "This browser gives the page no storage. Models are downloaded each time."
          : `${format.bytes(used)} of the ${format.bytes(quota)} that the browser allows.`;
      clear.hidden = models.length < 2;
      list.replaceChildren(
        ...models.map((model) => {
          const name = shortUrl(model.url);
          const remove = button("Remove", "quiet", () => void change(cache.remove(model.key), `${name} was removed.`));
          remove.setAttribute("aria-label", `Remove ${name}`);
          const complete = model.complete ? "" : ", not complete";
          const state = `${format.bytes(model.bytes)}${complete}, used ${format.day(model.lastUsed)}`;
          return element(
            "li",
            {},
            element(
              "div",
              { class: "cache-item" },
              element("span", { class: "cache-name" }, name),
              element("span", { class: "hint" }, state),
            ),
            remove,
          );
        }),
      );
    } catch (failure) {
      usage.textContent = "This browser gives the page no storage. Models are downloaded each time.";
      clear.hidden = true;
      list.replaceChildren();
      console.info("girih: no cache:", failure);
    }
  }

  async function change(done: Promise<void>, words: string): Promise<void> {
    try {
      await done;
      announce(words);
    } catch (failure) {
      showFailure(failureBox, failure);
    }
    await showCache();
    usage.focus({ preventScroll: true });
  }

  clear.addEventListener("click", () => {
    const cache = session.girih?.cache;
    if (cache !== undefined) {
      void change(cache.clear(), "All models were removed from the cache.");
    }
  });
}

/** An address without what is the same for all of its host. */
function shortUrl(url: string): string {
  try {
    const { host, pathname } = new URL(url, document.baseURI);
    const path = pathname.replace(/\/resolve\/[^/]+\/?/, "/").replace(/^\/|\/$/g, "");
    return host === location.host ? path : `${host}/${path}`;
  } catch {
    return url;
  }
}
