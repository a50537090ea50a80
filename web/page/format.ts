// Numbers and sizes in words. Decimal units, as disks and networks have them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 12,345 */
export function count(value: number): string {
  return whole.format(value);
}

/** Three significant digits: 0.0123, 4.56, 78.9, 1,234 */
export function significant(value: number): string {
  if (!Number.isFinite(value)) {
    return "–";
  }
  return Math.abs(value) >= 100 ? whole.format(value) : String(Number(value.toPrecision(3)));
}

/** 11.5 MB */
export function bytes(value: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let scaled = value;
  let unit = 0;
  while (scaled >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit += 1;
  }
  return `${significant(scaled)} ${units[unit] ?? "bytes"}`;
}

/** Where 2 kB and 11.5 MB stand in one line, both in the unit of the larger: "2.1 of 11.5 MB". */
export function bytesOf(part: number, total: number): string {
  const [largest = "0", unit = "bytes"] = bytes(total).split(" ");
  const scale = { bytes: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 }[unit] ?? 1;
  const digits = largest.split(".")[1]?.length ?? 0;
  return `${(part / scale).toFixed(digits)} of ${largest} ${unit}`;
}

/** 5.8 million */
export function parameters(value: number): string {
  if (value >= 1e9) {
    return `${significant(value / 1e9)} billion`;
  }
  return value >= 1e6 ? `${significant(value / 1e6)} million` : count(value);
}

/** 84 ms, 1.2 s */
export function seconds(value: number): string {
  return value < 1 ? `${significant(value * 1000)} ms` : `${significant(value)} s`;
}

/** A time of so many milliseconds: 12.3 µs, 4.56 ms */
export function milliseconds(value: number): string {
  return value < 0.1 ? `${significant(value * 1000)} µs` : `${significant(value)} ms`;
}

/** "1 token", "2 tokens" */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** "today at 14:05", "3 Mar 2026" */
export function day(date: Date): string {
  if (date.toDateString() === new Date().toDateString()) {
    return `today at ${new Intl.DateTimeFormat("en-GB", { timeStyle: "short" }).format(date)}`;
  }
  return new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" }).format(date);
}
