// The page of girih: makes the session, wires the views, shows the one that the address names.

import { announce } from "./announce.js";
import { benchView } from "./bench.js";
import { chatView } from "./chat.js";
import { deviceView } from "./device.js";
import { all, button, byId, element } from "./dom.js";
import { sentence } from "./errors.js";
import type { LostEvent, Notice } from "./girih/index.js";
import { modelView } from "./model.js";
import { samplingForm } from "./sampling.js";
import { Session } from "./session.js";
import { settings } from "./store.js";
import { storyView } from "./story.js";

const VIEWS = ["story", "chat", "model", "device", "bench"] as const;
type View = (typeof VIEWS)[number];

const session = new Session();

function viewOfAddress(): View {
  const name = location.hash.slice(1);
  return VIEWS.find((view) => view === name) ?? "story";
}

/** Shows the view that the address names; `focus` moves to its heading after a click on a tab. */
function showView(focus: boolean): void {
  const unsupported = session.phase === "unsupported";
  let view = viewOfAddress();
  if (view === "chat" && session.model?.info.hasChatTemplate === false) {
    view = "story";
  }
  for (const name of VIEWS) {
    byId(name, HTMLElement).hidden = unsupported || name !== view;
  }
  byId("write", HTMLElement).hidden = unsupported || (view !== "story" && view !== "chat");
  byId("unsupported", HTMLElement).hidden = !unsupported;
  byId("views", HTMLElement).hidden = unsupported;
  for (const link of all(".tabs a")) {
    if (link.getAttribute("href") === `#${view}`) {
      link.setAttribute("aria-current", "page");
    } else {
      link.removeAttribute("aria-current");
    }
  }
  const title = byId(unsupported ? "unsupported-title" : `${view}-title`, HTMLElement);
  document.title = `${title.textContent}: girih`;
  if (focus) {
    scrollTo(0, 0);
    title.focus({ preventScroll: true });
  }
}

/** Engine and model in a few words, at the top of the page. */
function stateWords(): string {
  const { girih, model, phase, source } = session;
  const device = girih === null ? "" : ` · ${girih.caps.tier}`;
  switch (phase) {
    case "starting":
      return "Starting";
    case "loading":
      return `Loading ${source?.label ?? "the model"}`;
    case "rebuilding":
      return "Rebuilding the device";
    case "lost":
      return session.loss?.reason === "internal" ? "Engine stopped" : "Device lost";
    case "unsupported":
      return "No WebGPU";
    case "failed":
      return "Could not start";
    case "idle":
      return `No model${device}`;
    case "ready":
      return `${model?.info.name ?? ""}${device}`;
  }
}

const STOPPED = "The engine stopped.";

/** The banner of a lost device. */
function showLoss(): void {
  const box = byId("lost", HTMLElement);
  const { loss, failure, phase } = session;
  if (phase === "rebuilding") {
    return; // the banner stays until the new device is there
  }
  box.hidden = loss === null || phase !== "lost";
  if (box.hidden || loss === null) {
    box.replaceChildren();
    return;
  }
  const { what, why } = lossWords(loss, failure);
  const rebuild = button("Rebuild", "primary", () => {
    rebuild.disabled = true;
    rebuild.textContent = "Rebuilding";
    void session.rebuild();
  });
  const todo = " Rebuild makes a new device and loads the model onto it.";
  const words = element("p", {}, element("strong", {}, what), todo);
  box.replaceChildren(element("div", {}, words, element("p", { class: "hint" }, why)), rebuild);
}

/** What happened to the device, and why. */
function lossWords(loss: LostEvent, failure: unknown): { what: string; why: string } {
  if (failure !== null) {
    const message = failure instanceof Error ? failure.message : String(failure);
    const what = loss.reason === "internal" ? STOPPED : "The device could not be rebuilt.";
    return { what, why: `${sentence(failure)} ${message}` };
  }
  return { what: loss.reason === "internal" ? STOPPED : "The graphics processor was taken away.", why: loss.message };
}

/** Notices stand at the top until they are dismissed. */
function showNotice(notice: Notice): void {
  if (notice.code === "model-note" || (notice.code === "no-subgroups" && settings.tier === "t0")) {
    return; // stands with the model; is what was asked for
  }
  const list = byId("notices", HTMLElement);
  if (all("p", list).some((shown) => shown.textContent === notice.message)) {
    return;
  }
  const close = button("Dismiss", "quiet", () => {
    item.remove();
    list.hidden = list.childElementCount === 0;
  });
  const item = element("li", { class: "banner" }, element("p", {}, notice.message), close);
  list.append(item);
  list.hidden = false;
  announce(notice.message);
}

/** What to do without WebGPU, the visitor's browser first. */
function showUnsupported(): void {
  const agent = navigator.userAgent;
  const here = agent.includes("Firefox/") ? "firefox" : agent.includes("Chrome/") ? "chrome" : "safari";
  const list = byId("browsers", HTMLElement);
  const own = list.querySelector(`[data-browser=${here}]`);
  if (own !== null) {
    own.classList.add("browser-own");
    list.prepend(own);
  }
  const found = session.support?.reason ?? (session.failure instanceof Error ? session.failure.message : "");
  byId("unsupported-reason", HTMLElement).textContent = isSecureContext
    ? found
    : "This page was opened without encryption. Browsers give WebGPU only to pages from https:// or localhost.";
}

samplingForm();
storyView(session);
chatView(session);
modelView(session);
deviceView(session);
benchView(session);

session.onNotice(showNotice);
session.onChange(() => {
  const state = byId("state", HTMLElement);
  state.textContent = stateWords();
  state.dataset["phase"] = session.phase;
  const chats = session.model?.info.hasChatTemplate ?? viewOfAddress() === "chat"; // not known yet: as the address says
  byId("chat-tab", HTMLElement).hidden = !chats;
  showLoss();
  if (session.phase === "unsupported") {
    showUnsupported();
  }
  showView(false);
});
addEventListener("hashchange", () => showView(true));
byId("unsupported-retry", HTMLButtonElement).addEventListener("click", () => void session.restart());

void session.start();
