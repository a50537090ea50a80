// The story: a beginning, the text that the model writes after it, and what can be done with it.

import { announce } from "./announce.js";
import { button, byId, copyText, element } from "./dom.js";
import { showFailure } from "./errors.js";
import * as format from "./format.js";
import { generateOptions } from "./sampling.js";
import type { Session } from "./session.js";
import { set, settings, tab } from "./store.js";
import { ending, follow } from "./stream.js";

const HERE = "here in this page, on your own graphics processor";
const OPENINGS = ["Once upon a time", "The little fox", "In the deep forest there lived"];

/** A story as it is kept over a reload. */
interface Story {
  beginning: string;
  text: string;
}

function storedStory(): Story {
  const stored = tab.read("story");
  if (typeof stored === "object" && stored !== null && "beginning" in stored && "text" in stored) {
    const { beginning, text } = stored;
    if (typeof beginning === "string" && typeof text === "string") {
      return { beginning, text };
    }
  }
  return { beginning: "", text: "" };
}

/** Wires the story view. */
export function storyView(session: Session): void {
  const form = byId("story-form", HTMLFormElement);
  const prompt = byId("prompt", HTMLTextAreaElement);
  const write = byId("story-write", HTMLButtonElement);
  const stop = byId("story-stop", HTMLButtonElement);
  const activity = byId("story-activity", HTMLElement);
  const failureBox = byId("story-failure", HTMLElement);
  const article = byId("paper", HTMLElement);
  const paper = byId("story-text", HTMLElement);
  const foot = byId("story-foot", HTMLElement);
  const finish = byId("story-finish", HTMLElement);
  const goOn = byId("story-on", HTMLButtonElement);
  const copy = byId("story-copy", HTMLButtonElement);
  const lede = byId("story-lede", HTMLElement);

  const story = storedStory();
  const beginning = document.createTextNode(story.beginning);
  const text = document.createTextNode(story.text);
  paper.append(element("span", { class: "prose-beginning" }, beginning), text);
  let writing = false;

  function show(): void {
    const { model, phase, source } = session;
    const ready = phase === "ready" && model !== null && !model.info.isEncoder;
    write.disabled = !ready;
    write.hidden = writing;
    stop.hidden = !writing;
    goOn.disabled = !ready;
    foot.hidden = writing || beginning.length + text.length === 0;
    article.classList.toggle("paper-empty", beginning.length + text.length === 0);
    lede.textContent =
      source === null || source.builtIn || model === null
        ? `A language model writes on, ${HERE}. The built-in one has 5.8 million parameters and knows fairy tales only.`
        : `${model.info.name} writes on, ${HERE}.`;
    activity.textContent = writing
      ? "Writing"
      : model?.info.isEncoder === true
        ? "This model makes vectors, not text. Load another one to write."
        : session.activity === "bench"
          ? "The bench is running; writing stops it."
          : "";
  }

  async function run(from: string): Promise<void> {
    const model = session.model;
    if (model === null) {
      return;
    }
    showFailure(failureBox, null);
    writing = true;
    show();
    try {
      await session.run("write", async (signal) => {
        const generation = model.generate(from, generateOptions());
        const result = await follow(generation, text, article, signal);
        finish.textContent = ending(result, model.info.context);
        goOn.hidden = result.finish === "stop" || result.finish === "context";
      });
    } catch (failure) {
      goOn.hidden = text.length === 0;
      finish.textContent = "Broken off.";
      if (session.loss === null) {
        showFailure(failureBox, failure); // else the banner says it
      }
    } finally {
      writing = false;
      tab.write("story", { beginning: beginning.data, text: text.data });
      const focused = document.activeElement === stop;
      show();
      if (focused) {
        write.focus({ preventScroll: true });
      }
    }
  }

  prompt.value = settings.prompt;
  prompt.addEventListener("input", () => set("prompt", prompt.value));
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  byId("openings", HTMLElement).append(
    ...OPENINGS.map((opening) => {
      const chip = button(opening, "", () => {
        prompt.value = opening;
        set("prompt", opening);
        prompt.focus();
      });
      chip.className = "chip";
      return chip;
    }),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (write.disabled || writing) {
      return;
    }
    beginning.data = prompt.value;
    text.data = "";
    void run(prompt.value);
    stop.focus({ preventScroll: true });
  });
  stop.addEventListener("click", () => void session.stop());
  goOn.addEventListener("click", () => {
    void run(beginning.data + text.data);
    stop.focus({ preventScroll: true });
  });
  copy.addEventListener("click", () => {
    void copyText(copy, beginning.data + text.data, paper).then(() => announce("The story was copied."));
  });

  goOn.hidden = story.text === "";
  if (story.text !== "") {
    finish.textContent = `${format.plural(story.text.length, "character")} from before the reload.`;
  }
  session.onChange(show);
}
