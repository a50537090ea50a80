// A conversation: the messages, the one being answered, and the form for the next.

import { announce } from "./announce.js";
import { button, byId, copyText, element } from "./dom.js";
import { showFailure } from "./errors.js";
import type { Message } from "./girih/index.js";
import { generateOptions } from "./sampling.js";
import type { Session } from "./session.js";
import { set, settings, tab } from "./store.js";
import { ending, follow } from "./stream.js";

interface Turn {
  role: "user" | "assistant";
  content: string;
}

const NAMES = { user: "You", assistant: "Model" };

function storedTurns(): Turn[] {
  const stored = tab.read("chat");
  if (!Array.isArray(stored)) {
    return [];
  }
  return stored.filter(
    (turn: unknown): turn is Turn =>
      typeof turn === "object" &&
      turn !== null &&
      "role" in turn &&
      (turn.role === "user" || turn.role === "assistant") &&
      "content" in turn &&
      typeof turn.content === "string",
  );
}

/** Wires the chat view. */
export function chatView(session: Session): void {
  const list = byId("messages", HTMLElement);
  const form = byId("chat-form", HTMLFormElement);
  const input = byId("message", HTMLTextAreaElement);
  const send = byId("chat-send", HTMLButtonElement);
  const stop = byId("chat-stop", HTMLButtonElement);
  const copy = byId("chat-copy", HTMLButtonElement);
  const clear = byId("chat-clear", HTMLButtonElement);
  const activity = byId("chat-activity", HTMLElement);
  const failureBox = byId("chat-failure", HTMLElement);
  const lede = byId("chat-lede", HTMLElement);
  const system = byId("system", HTMLTextAreaElement);

  let turns = storedTurns();
  let answering = false;

  function item(turn: Turn): { node: HTMLLIElement; text: Text } {
    const text = document.createTextNode(turn.content);
    const node = element(
      "li",
      { class: `message message-${turn.role}` },
      element("p", { class: "who" }, NAMES[turn.role]),
      element("div", { class: "message-text" }, text),
    );
    return { node, text };
  }

  function showTurns(): void {
    list.replaceChildren(...turns.map((turn) => item(turn).node));
    if (turns.length === 0 && session.source?.builtIn !== false) {
      const opening = "Tell me a story about a brave fox.";
      const chip = button(opening, "", () => {
        input.value = opening;
        input.focus();
      });
      chip.className = "chip";
      const words = "It understands one kind of message: “Tell me a story about …”. ";
      list.append(element("li", { class: "message-none" }, words, chip));
    }
  }

  function show(): void {
    const { model, phase, source } = session;
    send.disabled = phase !== "ready" || model?.info.hasChatTemplate !== true;
    send.hidden = answering;
    stop.hidden = !answering;
    clear.hidden = answering || turns.length === 0;
    copy.hidden = answering || turns.length === 0;
    activity.textContent = answering ? "Answering" : "";
    lede.textContent =
      source === null || source.builtIn || model === null
        ? "Talk with the built-in story model. It is very small: it tells fairy tales and knows nothing else."
        : `Talk with ${model.info.name}. Each answer is computed on this device.`;
  }

  function keep(): void {
    tab.write("chat", turns);
  }

  async function answer(): Promise<void> {
    const model = session.model;
    if (model === null) {
      return;
    }
    showFailure(failureBox, null);
    answering = true;
    const { node, text } = item({ role: "assistant", content: "" });
    node.classList.add("message-running");
    list.append(node);
    show();
    const note = element("p", { class: "message-note" });
    try {
      await session.run("write", async (signal) => {
        const first: Message[] = settings.system.trim() === "" ? [] : [{ role: "system", content: settings.system }];
        const messages = [...first, ...turns.map(({ role, content }) => ({ role, content }))];
        const generation = model.chat(messages, generateOptions());
        const result = await follow(generation, text, node, signal);
        if (result.finish !== "stop") {
          note.textContent = ending(result, model.info.context);
        }
      });
    } catch (failure) {
      note.textContent = "Broken off.";
      if (session.loss === null) {
        showFailure(failureBox, failure); // else the banner says it
      }
    } finally {
      answering = false;
      node.classList.remove("message-running");
      if (text.length > 0) {
        turns.push({ role: "assistant", content: text.data });
        if (note.textContent !== "") {
          node.append(note);
        }
      } else {
        // No answer: the message goes back to where it can be changed and sent again.
        node.remove();
        const last = turns.pop();
        list.lastElementChild?.remove();
        if (last !== undefined && input.value === "") {
          input.value = last.content;
        }
      }
      keep();
      const focused = document.activeElement === stop;
      show();
      if (focused) {
        send.focus({ preventScroll: true });
      }
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const content = input.value.trim();
    if (send.disabled || answering || content === "") {
      return;
    }
    if (turns.length === 0) {
      list.replaceChildren();
    }
    const turn: Turn = { role: "user", content };
    turns.push(turn);
    list.append(item(turn).node);
    input.value = "";
    keep();
    void answer();
    list.lastElementChild?.scrollIntoView({ block: "end" });
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  stop.addEventListener("click", () => void session.stop());
  clear.addEventListener("click", () => {
    turns = [];
    keep();
    showFailure(failureBox, null);
    showTurns();
    show();
    announce("The conversation was cleared.");
    input.focus();
  });
  copy.addEventListener("click", () => {
    const text = turns.map(({ role, content }) => `${NAMES[role]}: ${content}`).join("\n\n");
    void copyText(copy, text, list).then(() => announce("The conversation was copied."));
  });
  system.value = settings.system;
  system.addEventListener("input", () => set("system", system.value));

  let shownFor = session.source;
  showTurns();
  session.onChange(() => {
    if (shownFor !== session.source && turns.length === 0) {
      showTurns();
    }
    shownFor = session.source;
    show();
  });
}
