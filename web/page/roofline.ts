// The roofline plot: each kernel by its arithmetic intensity and its rate, under the roofs of the device.

import { svg } from "./dom.js";
import * as format from "./format.js";
import type { BenchReport, BenchRow, Ceilings } from "./girih/index.js";

interface Point {
  row: BenchRow;
  /** GFLOP/s */
  rate: number;
  /** Part of the roof above it. */
  part: number;
}

/** The rates at which kernels read what no cache holds, and multiply and add. */
function limits(ceilings: Ceilings): { readGBs: number; f32Gflops: number } {
  return { readGBs: ceilings.memory.at(-1)?.readGBs ?? Number.NaN, f32Gflops: ceilings.f32Gflops };
}

/** The rate that memory and arithmetic allow at an intensity, in GFLOP/s. */
function roof(intensity: number, ceilings: Ceilings): number {
  const { readGBs, f32Gflops } = limits(ceilings);
  return Math.min(readGBs * intensity, f32Gflops);
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
  if (row.name === "") {
    return row.kernel;
  }
  return row.name.startsWith(row.kernel) ? row.name : `${row.kernel} ${row.name}`;
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
  const { readGBs, f32Gflops } = limits(report.ceilings);
  const points = pointsOf(report);
  const best = points.reduce<Point | null>((a, b) => (a === null || distance(b) < distance(a) ? b : a), null);
  const above = points.filter(({ part }) => part > 1.05).length;
  const without = report.rows.length - points.length;
  return [
    `${report.adapter}, ${report.tier}: kernels read ${format.significant(readGBs)} GB/s,`,
    `multiply-adds reach ${format.significant(f32Gflops)} GFLOP/s,`,
    `a launch takes ${format.significant(report.ceilings.dispatchMicros)} µs.`,
    `Left of ${format.significant(f32Gflops / readGBs)} FLOP per byte memory is the limit, right of it arithmetic.`,
    best === null ? "" : `Nearest to the roof: ${words(best)}.`,
    above === 0 ? "" : `${format.plural(above, "point lies", "points lie")} above it: their data comes from caches.`,
    without === 0 ? "" : `Not in the plot: ${format.plural(without, "kernel")} without arithmetic.`,
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
  const width = text.length * 8 + 4;
  const height = 14;
  const places = [
    { x: x + 8, y: y - height / 2 },
    { x: x - 8 - width, y: y - height / 2 },
    { x: x - width / 2, y: y - 9 - height },
    { x: x - width / 2, y: y + 9 },
  ];
  for (const { x: left, y: top } of places) {
    const box = { x: left, y: top, width, height };
    const insideX = left >= within.x && left + width <= within.x + within.width;
    const inside = insideX && top >= within.y && top + height <= within.y + within.height;
    if (inside && !taken.some((other) => overlaps(box, other))) {
      return box;
    }
  }
  return null;
}

/** What the parts of a plot are drawn into. */
interface Frame {
  area: Box;
  x: Axis;
  y: Axis;
}

function text(className: string, words: string, attributes: Record<string, string | number>): SVGTextElement {
  return svg("text", { class: className, ...attributes }, words);
}

function grid({ area, x, y }: Frame): SVGElement[] {
  const bottom = area.y + area.height;
  const right = area.x + area.width;
  const columns = x.ticks().flatMap((tick) => {
    const at = x.at(tick);
    return [
      svg("line", { class: "grid", x1: at, x2: at, y1: area.y, y2: bottom }),
      text("tick", format.significant(tick), { x: at, y: bottom + 17, "text-anchor": "middle" }),
    ];
  });
  const rows = y.ticks().flatMap((tick) => {
    const at = y.at(tick);
    return [
      svg("line", { class: "grid", x1: area.x, x2: right, y1: at, y2: at }),
      text("tick", format.significant(tick), { x: area.x - 7, y: at + 4, "text-anchor": "end" }),
    ];
  });
  const sideways = `translate(12 ${area.y + area.height / 2}) rotate(-90)`;
  return [
    ...columns,
    ...rows,
    text("axis", "FLOP per byte", { x: area.x + area.width / 2, y: bottom + 40, "text-anchor": "middle" }),
    text("axis", "GFLOP/s", { "text-anchor": "middle", transform: sideways }),
  ];
}

/** The two roofs with their names, and the room that they take. */
function roofs({ area, x, y }: Frame, ceilings: Ceilings): { nodes: SVGElement[]; taken: Box[] } {
  const { readGBs, f32Gflops } = limits(ceilings);
  const bottom = area.y + area.height;
  const right = area.x + area.width;
  // The slope enters at the left, or at the bottom where it would lie below it.
  const enter = Math.max(x.low, y.low / readGBs);
  const start = { x: x.at(enter), y: y.at(roof(enter, ceilings)) };
  const corner = { x: x.at(f32Gflops / readGBs), y: y.at(f32Gflops) };
  const line = `${start.x},${start.y} ${corner.x},${corner.y} ${right},${corner.y}`;

  const middle = { x: (start.x + corner.x) / 2, y: (start.y + corner.y) / 2 };
  const slope = (Math.atan2(corner.y - start.y, corner.x - start.x) * 180) / Math.PI;
  const along = `translate(${middle.x} ${middle.y}) rotate(${slope}) translate(0 -7)`;
  return {
    nodes: [
      svg("polygon", { class: "under", points: `${line} ${right},${bottom} ${start.x},${bottom}` }),
      svg("polyline", { class: "roof", points: line }),
      text("roof-name", `${format.significant(readGBs)} GB/s`, { "text-anchor": "middle", transform: along }),
      text("roof-name", `${format.significant(f32Gflops)} GFLOP/s`, {
        x: right - 4,
        y: corner.y - 7,
        "text-anchor": "end",
      }),
    ],
    taken: [
      { x: middle.x - 30, y: middle.y - 26, width: 60, height: 40 },
      { x: right - 110, y: corner.y - 20, width: 110, height: 17 },
      { x: corner.x, y: corner.y - 2, width: right - corner.x, height: 4 },
    ],
  };
}

/** The name of each kernel once, beside its best point where there is room. */
function names({ area, x, y }: Frame, points: readonly Point[], others: readonly Box[]): SVGElement[] {
  const dot = ({ row, rate }: Point): Box => ({ x: x.at(row.intensity) - 5, y: y.at(rate) - 5, width: 10, height: 10 });
  const taken = [...others, ...points.map(dot)];
  const named = new Map<string, SVGElement>();
  for (const { row, rate } of [...points].sort((a, b) => b.rate - a.rate)) {
    const box = named.has(row.kernel) ? null : place(x.at(row.intensity), y.at(rate), row.kernel, taken, area);
    if (box !== null) {
      taken.push(box);
      named.set(row.kernel, text("point-name", row.kernel, { x: box.x + 2, y: box.y + 11 }));
    }
  }
  return [...named.values()];
}

/** Where a key leads from a point, if it leads anywhere. */
function neighbour(key: string, index: number, count: number): number | undefined {
  switch (key) {
    case "ArrowRight":
    case "ArrowDown":
      return Math.min(count - 1, index + 1);
    case "ArrowLeft":
    case "ArrowUp":
      return Math.max(0, index - 1);
    case "Home":
      return 0;
    case "End":
      return count - 1;
    default:
      return undefined;
  }
}

/** The points. Tab reaches one of them, the arrow keys go on from there. */
function dots({ x, y }: Frame, points: readonly Point[], ridge: number, onPoint: OnPoint): SVGGElement[] {
  const nodes = points.map((point, index) => {
    const center = { cx: x.at(point.row.intensity), cy: y.at(point.rate) };
    const limit = point.row.intensity < ridge ? "point point-memory" : "point";
    return svg(
      "g",
      { class: limit, role: "img", tabindex: index === 0 ? 0 : -1, "aria-label": words(point) },
      svg("circle", { class: "point-touch", ...center, r: 14 }),
      svg("circle", { class: "point-ring", ...center, r: 9 }),
      svg("circle", { class: "point-dot", ...center, r: 4.5 }),
    );
  });
  nodes.forEach((node, index) => {
    const show = (): void => {
      for (const other of nodes) {
        other.setAttribute("tabindex", other === node ? "0" : "-1");
        other.classList.toggle("point-on", other === node);
      }
      const point = points[index];
      if (point !== undefined) {
        onPoint(words(point), point.row);
      }
    };
    node.addEventListener("focus", show);
    node.addEventListener("pointerenter", show);
    node.addEventListener("click", () => node.focus());
    node.addEventListener("keydown", (event) => {
      const to = neighbour(event.key, index, nodes.length);
      if (to !== undefined) {
        event.preventDefault();
        nodes[to]?.focus();
      }
    });
  });
  return nodes;
}

/** Gets the words of the point that has the focus or the pointer, and its row. */
type OnPoint = (words: string, row: BenchRow) => void;

/** Draws the plot `width` pixels wide. */
export function roofline(report: BenchReport, width: number, onPoint: OnPoint): SVGSVGElement {
  const { ceilings } = report;
  const points = pointsOf(report);
  const height = Math.round(Math.min(440, Math.max(300, width * 0.55)));
  const area: Box = { x: 52, y: 14, width: width - 52 - 14, height: height - 14 - 46 };
  const { readGBs, f32Gflops } = limits(ceilings);
  const ridge = f32Gflops / readGBs;
  const intensities = [ridge / 4, ridge * 4, ...points.map(({ row }) => row.intensity)];
  const rates = [f32Gflops / 10, f32Gflops, ...points.map(({ rate }) => rate)];
  const frame: Frame = {
    area,
    x: new Axis(Math.min(...intensities) / 1.6, Math.max(...intensities) * 1.6, area.x, area.x + area.width),
    y: new Axis(Math.min(...rates) / 1.6, Math.max(...rates) * 2, area.y + area.height, area.y),
  };
  const { nodes, taken } = roofs(frame, ceilings);
  return svg(
    "svg",
    {
      class: "roofline",
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "group",
      "aria-label": "Roofline plot. The arrow keys go from point to point.",
    },
    ...grid(frame),
    ...nodes,
    ...names(frame, points, taken),
    ...dots(frame, points, ridge, onPoint),
  );
}
