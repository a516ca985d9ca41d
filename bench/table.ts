/** From the rounds of a row to a line of the report. Pure. */

/** One round of one gateway. */
export interface Figures {
  readonly perSecond: number;
  /** CPU time of the gateway, in µs. */
  readonly cpuPerCall: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface Row {
  readonly name: string;
  readonly runtime: readonly Figures[];
  readonly baseline: readonly Figures[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.floor(middle)] ?? 0) + (sorted[Math.ceil(middle) - 1] ?? 0)) / 2;
}

/** The median of every figure on its own. */
export const summary = (rounds: readonly Figures[]): Figures => ({
  perSecond: median(rounds.map((round) => round.perSecond)),
  cpuPerCall: median(rounds.map((round) => round.cpuPerCall)),
  p50Ms: median(rounds.map((round) => round.p50Ms)),
  p99Ms: median(rounds.map((round) => round.p99Ms)),
});

const columns = [
  "request",
  "req/s",
  "CPU µs/call",
  "p50 ms",
  "p99 ms",
  "baseline req/s",
  "baseline CPU µs/call",
  "throughput ratio",
  "CPU ratio",
];

/** A Markdown table. A throughput ratio of 0.5 is half the baseline's; a CPU ratio of 2 is twice its time. */
export function table(rows: readonly Row[]): string {
  const lines = rows.map(({ name, runtime, baseline }) => {
    const ours = summary(runtime);
    const theirs = summary(baseline);
    return [
      name,
      ours.perSecond.toFixed(0),
      ours.cpuPerCall.toFixed(0),
      ours.p50Ms.toFixed(1),
      ours.p99Ms.toFixed(1),
      theirs.perSecond.toFixed(0),
      theirs.cpuPerCall.toFixed(0),
      (ours.perSecond / theirs.perSecond).toFixed(2),
      (ours.cpuPerCall / theirs.cpuPerCall).toFixed(2),
    ];
  });
  return markdown(columns, lines);
}

/** A Markdown table whose first `texts` columns are text; the others are figures. */
export function markdown(
  columns: readonly string[],
  lines: readonly (readonly string[])[],
  texts = 1,
): string {
  const widths = columns.map((column, index) =>
    Math.max(column.length, ...lines.map((line) => line[index]?.length ?? 0)),
  );
  const format = (cells: readonly string[]): string =>
    `| ${cells.map((cell, index) => (index < texts ? cell.padEnd(widths[index] ?? 0) : cell.padStart(widths[index] ?? 0))).join(" | ")} |`;
  const rule = `| ${widths.map((width, index) => (index < texts ? "-".repeat(width) : `${"-".repeat(width - 1)}:`)).join(" | ")} |`;
  return [format(columns), rule, ...lines.map(format)].join("\n");
}
