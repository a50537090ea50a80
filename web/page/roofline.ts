// The roofline plot: each kernel by its arithmetic intensity and its rate, under the roofs of the device.

import { svg } from "./dom.js";
import * as format from "./format.js";
import type { BenchReport, BenchRow } from "./girih/index.js";

interface Point {
  row: BenchRow;
  /** GFLOP/s */
  rate: number;
  /** Part of the roof above it. */
  part: number;
}

/** The rate that memory and arithmetic allow at an intensity, in GFLOP/s. */
function roof(intensity: number, { copyGBs, fmaGflops }: BenchReport["ceilings"]): number {
  return Math.min(copyGBs * intensity, fmaGflops);
}

function pointsOf(report: BenchReport): Point[] {
  return report.rows
    .filter((row) => row.intensity > 0 && row.flops > 0 && row.medianMs > 0)
    .map((row) => {
      const rate = row.flops / (row.medianMs * 1e6);
      return { row, rate, part: rate / roof(row.intensity, report.ceilings) };
    })
    .sort((a, b) => a.row.intensity - b.row.intensity || a.rate - b.rate);
}

/** The name of a kernel with what it was given. */
export function rowName(row: BenchRow): string {
  return row.name === "" || row.name === row.kernel ? row.kernel : row.name.startsWith(row.kernel) ? row.name : `${row.kernel} ${row.name}`;
}

function words({ row, rate, part }: Point): string {
  return (
    `${rowName(row)}, ${row.variant.split(" ")[0] ?? ""}: ${format.significant(rate)} GFLOP/s at ` +
    `${format.significant(row.intensity)} FLOP per byte, ${format.significant(part * 100)} % of the roof`
  );
}

/** How far a point is from the roof. */
function distance({ part }: Point): number {
  return Math.abs(Math.log(part));
}

/** What the plot shows, for those who do not see it. */
export function rooflineText(report: BenchReport): string {
  const { copyGBs, fmaGflops, dispatchMicros } = report.ceilings;
  const points = pointsOf(report);
  const best = points.reduce<Point | null>((a, b) => (a === null || distance(b) < distance(a) ? b : a), null);
  const above = points.filter(({ part }) => part > 1.05).length;
  const without = report.rows.length - points.length;
  return [
    `${report.adapter}, ${report.tier}: a copy moves ${format.significant(copyGBs)} GB/s, multiply-adds reach ${format.significant(fmaGflops)} GFLOP/s, a launch takes ${format.significant(dispatchMicros)} µs.`,
    `Left of ${format.significant(fmaGflops / copyGBs)} FLOP per byte memory is the limit, right of it arithmetic.`,
    best === null ? "" : `Nearest to the roof: ${words(best)}.`,
    above === 0 ? "" : `${format.plural(above, "point lies", "points lie")} above it: their data comes from caches.`,
    without === 0 ? "" : `${format.plural(without, "kernel")} that only ${without === 1 ? "moves" : "move"} bytes ${without === 1 ? "is" : "are"} in the table, not in the plot.`,
    "Every point is a row of the table below.",
  ].join(" ");
}

/** A logarithmic axis from `low` to `high` onto `from` to `to`. */
class Axis {
  readonly #low: number;
  readonly #scale: number;
  readonly #from: number;

  constructor(
    readonly low: number,
    readonly high: number,
    from: number,
    to: number,
  ) {
    this.#low = Math.log10(low);
    this.#scale = (to - from) / (Math.log10(high) - this.#low);
    this.#from = from;
  }

  at(value: number): number {
    return this.#from + (Math.log10(value) - this.#low) * this.#scale;
  }

  /** Powers of ten; also 2 and 5 times them where the axis is short. */
  ticks(): number[] {
    const ticks: number[] = [];
    const steps = Math.abs(this.#scale) > 110 ? [1, 2, 5] : [1];
    for (let power = Math.floor(Math.log10(this.low)); power <= Math.ceil(Math.log10(this.high)); power += 1) {
      for (const step of steps) {
        const value = step * 10 ** power;
        if (value >= this.low * 0.999 && value <= this.high * 1.001) {
          ticks.push(value);
        }
      }
    }
    return ticks;
  }
}

interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

function overlaps(a: Box, b: Box): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

/** A free place for a label beside a point, if there is one. */
function place(x: number, y: number, text: string, taken: readonly Box[], within: Box): Box | null {
  const width = text.length * 7.3 + 4;
  const height = 14;
  const places = [
    { x: x + 8, y: y - height / 2 },
    { x: x - 8 - width, y: y - height / 2 },
    { x: x - width / 2, y: y - 9 - height },
    { x: x - width / 2, y: y + 9 },
  ];
  for (const { x: left, y: top } of places) {
    const box = { x: left, y: top, width, height };
    const inside = left >= within.x && left + width <= within.x + within.width && top >= within.y && top + height <= within.y + within.height;
    if (inside && !taken.some((other) => overlaps(box, other))) {
      return box;
    }
  }
  return null;
}

/**
 * Draws the plot `width` pixels wide. One point can be reached with Tab, the others from it with the arrow keys; `onPoint`
 * gets the words of the one that has the focus or the pointer, and its row.
 */
export function roofline(report: BenchReport, width: number, onPoint: (words: string, row: BenchRow | null) => void): SVGSVGElement {
  const { ceilings } = report;
  const points = pointsOf(report);
  const height = Math.round(Math.min(440, Math.max(300, width * 0.55)));
  const area: Box = { x: 52, y: 14, width: width - 52 - 14, height: height - 14 - 46 };
  const bottom = area.y + area.height;
  const right = area.x + area.width;
  const ridge = ceilings.fmaGflops / ceilings.copyGBs;

  const intensities = points.map(({ row }) => row.intensity);
  const rates = points.map(({ rate }) => rate);
  const x = new Axis(Math.min(ridge / 4, ...intensities) / 1.6, Math.max(ridge * 4, ...intensities) * 1.6, area.x, right);
  const y = new Axis(Math.min(ceilings.fmaGflops / 10, ...rates) / 1.6, Math.max(ceilings.fmaGflops, ...rates) * 2, bottom, area.y);

  const plot = svg("svg", {
    class: "roofline",
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "group",
    "aria-label": "Roofline plot. The arrow keys go from point to point.",
  });

  for (const tick of x.ticks()) {
    const at = x.at(tick);
    plot.append(
      svg("line", { class: "grid", x1: at, x2: at, y1: area.y, y2: bottom }),
      svg("text", { class: "tick", x: at, y: bottom + 17, "text-anchor": "middle" }, format.significant(tick)),
    );
  }
  for (const tick of y.ticks()) {
    const at = y.at(tick);
    plot.append(
      svg("line", { class: "grid", x1: area.x, x2: right, y1: at, y2: at }),
      svg("text", { class: "tick", x: area.x - 7, y: at + 4, "text-anchor": "end" }, format.significant(tick)),
    );
  }
  plot.append(
    svg("text", { class: "axis", x: area.x + area.width / 2, y: height - 6, "text-anchor": "middle" }, "FLOP per byte"),
    svg("text", { class: "axis", x: 0, y: 0, "text-anchor": "middle", transform: `translate(12 ${area.y + area.height / 2}) rotate(-90)` }, "GFLOP/s"),
  );

  // The slope enters at the left, or at the bottom where it would lie below it.
  const enter = Math.max(x.low, y.low / ceilings.copyGBs);
  const corner = { x: x.at(ridge), y: y.at(ceilings.fmaGflops) };
  const start = { x: x.at(enter), y: y.at(roof(enter, ceilings)) };
  plot.append(
    svg("polygon", { class: "under", points: `${start.x},${start.y} ${corner.x},${corner.y} ${right},${corner.y} ${right},${bottom} ${start.x},${bottom}` }),
    svg("polyline", { class: "roof", points: `${start.x},${start.y} ${corner.x},${corner.y} ${right},${corner.y}` }),
  );
  const slope = (Math.atan2(corner.y - start.y, corner.x - start.x) * 180) / Math.PI;
  const middle = { x: (start.x + corner.x) / 2, y: (start.y + corner.y) / 2 };
  plot.append(
    svg("text", { class: "roof-name", x: right - 4, y: corner.y - 7, "text-anchor": "end" }, `${format.significant(ceilings.fmaGflops)} GFLOP/s`),
    svg(
      "text",
      { class: "roof-name", "text-anchor": "middle", transform: `translate(${middle.x} ${middle.y}) rotate(${slope}) translate(0 -7)` },
      `${format.significant(ceilings.copyGBs)} GB/s`,
    ),
  );

  const dots: SVGGElement[] = [];
  const slopeBox = { x: middle.x - 30, y: middle.y - 26, width: 60, height: 40 };
  const ceilingBox = { x: right - 110, y: corner.y - 20, width: 110, height: 17 };
  const roofBox = { x: corner.x, y: corner.y - 2, width: right - corner.x, height: 4 };
  const taken: Box[] = [slopeBox, ceilingBox, roofBox];
  taken.push(...points.map(({ row, rate }) => ({ x: x.at(row.intensity) - 5, y: y.at(rate) - 5, width: 10, height: 10 })));
  const named = new Set<string>();
  const labels: SVGTextElement[] = [];
  // The best of each kernel has the first right to its name.
  const byRank = [...points].sort((a, b) => b.rate - a.rate);
  for (const { row, rate } of byRank) {
    if (named.has(row.kernel)) {
      continue;
    }
    const box = place(x.at(row.intensity), y.at(rate), row.kernel, taken, area);
    if (box !== null) {
      named.add(row.kernel);
      taken.push(box);
      labels.push(svg("text", { class: "point-name", x: box.x + 2, y: box.y + 11 }, row.kernel));
    }
  }
  plot.append(...labels);

  const select = (index: number, focus: boolean): void => {
    const dot = dots[index];
    const point = points[index];
    if (dot === undefined || point === undefined) {
      return;
    }
    dots.forEach((other) => other.setAttribute("tabindex", other === dot ? "0" : "-1"));
    dots.forEach((other) => other.classList.toggle("point-on", other === dot));
    onPoint(words(point), point.row);
    if (focus) {
      dot.focus();
    }
  };

  points.forEach((point, index) => {
    const center = { cx: x.at(point.row.intensity), cy: y.at(point.rate) };
    const memory = point.row.intensity < ridge;
    const dot = svg(
      "g",
      { class: memory ? "point point-memory" : "point", role: "img", tabindex: index === 0 ? 0 : -1, "aria-label": words(point) },
      svg("circle", { class: "point-touch", ...center, r: 14 }),
      svg("circle", { class: "point-ring", ...center, r: 9 }),
      svg("circle", { class: "point-dot", ...center, r: 4.5 }),
    );
    dot.addEventListener("focus", () => select(index, false));
    dot.addEventListener("pointerenter", () => select(index, false));
    dot.addEventListener("click", () => select(index, true));
    dot.addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: points.length - 1 }[event.key];
      if (to !== undefined) {
        event.preventDefault();
        select(Math.min(points.length - 1, Math.max(0, to)), true);
      }
    });
    dots.push(dot);
  });
  plot.append(...dots);
  return plot;
}
