// The bench: single kernels beside the ceilings of the device, as a table, a plot and a file.

import { announce } from "./announce.js";
import { byId, element } from "./dom.js";
import { isAbort, showFailure } from "./errors.js";
import * as format from "./format.js";
import type { BenchReport, BenchRow } from "./girih/index.js";
import { roofline, rooflineText, rowName } from "./roofline.js";
import type { Session } from "./session.js";
import { set, settings } from "./store.js";

function tableRow(row: BenchRow): HTMLTableRowElement {
  const [variant = "", ...constants] = row.variant.split(" ");
  const part = element("span", { class: "part", "aria-hidden": "true" }, element("span"));
  const filled = part.firstElementChild;
  if (filled instanceof HTMLElement) {
    filled.style.width = `${Math.min(100, row.ceilingPercent)}%`;
  }
  const fine = constants.length === 0 ? [] : [element("span", { class: "constants" }, constants.join(" "))];
  const cell = (text: string): HTMLTableCellElement => element("td", { class: "number" }, text);
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, rowName(row)),
    element("td", {}, variant, ...fine),
    cell(format.milliseconds(row.medianMs)),
    cell(`${format.milliseconds(row.p10Ms)} to ${format.milliseconds(row.p90Ms)}`),
    cell(`${format.significant(row.rate)} ${row.rateUnit}`),
    element("td", { class: "number" }, `${format.significant(row.ceilingPercent)} % of ${row.ceiling}`, part),
  );
}

/** Wires the bench view. */
export function benchView(session: Session): void {
  const form = byId("bench-form", HTMLFormElement);
  const kernels = byId("bench-kernels", HTMLInputElement);
  const runButton = byId("bench-run", HTMLButtonElement);
  const stop = byId("bench-stop", HTMLButtonElement);
  const save = byId("bench-export", HTMLButtonElement);
  const activity = byId("bench-activity", HTMLElement);
  const failureBox = byId("bench-failure", HTMLElement);
  const section = byId("roofline", HTMLElement);
  const plot = byId("roofline-plot", HTMLElement);
  const point = byId("roofline-point", HTMLElement);
  const rows = byId("bench-rows", HTMLElement);
  const table = byId("bench-table", HTMLTableSectionElement);

  const rowNodes = new Map<BenchRow, HTMLTableRowElement>();
  let report: BenchReport | null = null;
  let running = false;
  let width = 0;

  function show(): void {
    runButton.disabled = session.girih === null || (session.phase !== "ready" && session.phase !== "idle");
    runButton.hidden = running;
    stop.hidden = !running;
    save.hidden = running || report === null;
    if (!running && report === null) {
      activity.textContent =
        session.phase === "loading"
          ? "The bench can run when the model is loaded."
          : session.activity === "write"
            ? "A text is being written; the bench stops it."
            : "";
    }
  }

  function draw(): void {
    width = Math.floor(plot.clientWidth);
    if (report === null || width === 0) {
      return;
    }
    plot.replaceChildren(
      roofline(report, width, (text, row) => {
        point.textContent = text;
        rowNodes.forEach((node, other) => node.classList.toggle("row-on", other === row));
      }),
    );
  }

  async function run(): Promise<void> {
    const girih = session.girih;
    if (girih === null) {
      return;
    }
    report = null;
    running = true;
    let done = 0;
    showFailure(failureBox, null);
    rowNodes.clear();
    table.replaceChildren();
    section.hidden = true;
    rows.hidden = true;
    activity.textContent = "Measuring what the device can do at best";
    show();
    try {
      report = await session.run("bench", (signal) => {
        const only = settings.kernels.trim();
        return girih.bench({
          ...(only === "" ? {} : { kernels: only }),
          signal,
          onRow: (row) => {
            done += 1;
            rows.hidden = false;
            table.append(tableRow(row));
            activity.textContent = `${format.plural(done, "kernel")} measured, the last one ${rowName(row)}`;
          },
        });
      });
      activity.textContent = `${format.plural(report.rows.length, "kernel")} measured.`;
      report.rows.forEach((row, index) => {
        const node = table.rows[index];
        if (node !== undefined) {
          rowNodes.set(row, node); // rows came in this order
        }
      });
      byId("roofline-text", HTMLElement).textContent = rooflineText(report);
      point.textContent = "Point at a kernel, or use Tab and the arrow keys.";
      section.hidden = report.rows.length === 0;
      rows.hidden = report.rows.length === 0;
      requestAnimationFrame(draw);
      announce(activity.textContent);
    } catch (failure) {
      activity.textContent = `Stopped after ${format.plural(done, "kernel")}.`;
      if (!isAbort(failure) && session.loss === null) {
        showFailure(failureBox, failure);
      }
    } finally {
      running = false;
      const focused = document.activeElement === stop;
      show();
      if (focused) {
        runButton.focus({ preventScroll: true });
      }
    }
  }

  const constants = byId("bench-constants", HTMLInputElement);
  constants.addEventListener("change", () => table.classList.toggle("with-constants", constants.checked));
  kernels.value = settings.kernels;
  kernels.addEventListener("input", () => set("kernels", kernels.value));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!runButton.disabled && !running) {
      void run();
      stop.focus();
    }
  });
  stop.addEventListener("click", () => void session.stop());
  save.addEventListener("click", () => {
    if (report === null) {
      return;
    }
    const url = URL.createObjectURL(new Blob([JSON.stringify(report, null, 2)], { type: "application/json" }));
    element("a", { href: url, download: `girih-bench-${report.tier}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  });
  new ResizeObserver(() => {
    if (Math.floor(plot.clientWidth) !== width) {
      draw();
    }
  }).observe(plot);
  session.onChange(show);
}
