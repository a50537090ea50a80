// Elements of the page: typed look-ups that fail with the name of what is missing, and making new ones.

/** The element `#id`; an error says if it is missing or of another type. */
export function byId<T extends Element>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) {
    const what = found === null ? "no element" : `a ${found.constructor.name}`;
    throw new Error(`index.html: #${id} is ${what}, a ${type.name} is wanted`);
  }
  return found;
}

/** The first of `nodes`' descendants that match `selector` and are HTML elements. */
export function all(selector: string, within: ParentNode = document): HTMLElement[] {
  return [...within.querySelectorAll(selector)].filter((node) => node instanceof HTMLElement);
}

type Attributes = Record<string, string | number | boolean>;

function assign(node: Element, attributes: Attributes, children: readonly (Node | string)[]): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children);
}

/** A new HTML element. An attribute that is `false` is left out. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  assign(node, attributes, children);
  return node;
}

/** A new SVG element. */
export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): SVGElementTagNameMap[K] {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  assign(node, attributes, children);
  return node;
}

/** A button with words on it. */
export function button(text: string, kind: "" | "primary" | "quiet", onClick: () => void): HTMLButtonElement {
  const node = element("button", { type: "button", class: kind === "" ? "button" : `button button-${kind}` }, text);
  node.addEventListener("click", onClick);
  return node;
}

/** Fills a `dl` with terms and what they are. */
export function fillFacts(list: HTMLElement, facts: readonly (readonly [string, string])[]): void {
  list.replaceChildren(
    ...facts.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))),
  );
}

/** Copies text and says so on the button for a moment; selects `source` where the clipboard is refused. */
export async function copyText(from: HTMLButtonElement, text: string, source: Node): Promise<void> {
  const words = from.dataset["words"] ?? from.textContent;
  from.dataset["words"] = words;
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = "Copied";
  } catch {
    getSelection()?.selectAllChildren(source);
    from.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => {
    from.textContent = words;
  }, 2000);
}
