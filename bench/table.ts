/** From the rounds of a row to a line of the report. Pure. */

/** One round of one gateway. */
export interface Figures {
  readonly perSecond: number;
  /** CPU time of the gateway, in µs. */
  readonly cpuPerCall: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** The rounds of everything that took turns, by its name. */
export interface Row<Subject extends string> {
  readonly name: string;
  readonly rounds: Readonly<Record<Subject, readonly Figures[]>>;
}

export type CallRow = Row<"runtime" | "baseline" | "sdk"> & {
  /** Rows of one group differ only in the door. */
  readonly group: string;
};
export type ListRow = Row<"runtime" | "buffer">;
export type CatalogRow = Row<"few" | "many">;

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

const figureColumns = ["req/s", "CPU µs/call", "p50 ms", "p99 ms"];
const cells = ({ perSecond, cpuPerCall, p50Ms, p99Ms }: Figures): string[] => [
  perSecond.toFixed(0),
  cpuPerCall.toFixed(1),
  p50Ms.toFixed(1),
  p99Ms.toFixed(1),
];
const ratio = (a: number, b: number): string => (a / b).toFixed(2);

/** A throughput ratio of 0.5 is half the baseline's; a CPU ratio of 2 is twice its time. */
export function callTable(rows: readonly CallRow[]): string {
  const columns = [
    ...["request", ...figureColumns],
    ...["baseline req/s", "baseline CPU", "baseline p99", "CPU ratio", "throughput ratio", "p99 ratio"],
    ...["SDK req/s", "times the SDK"],
  ];
  const lines = rows.map(({ name, rounds }) => {
    const [ours, theirs, sdk] = [rounds.runtime, rounds.baseline, rounds.sdk].map(summary) as [
      ...[Figures, Figures, Figures],
    ];
    return [
      ...[name, ...cells(ours)],
      ...[theirs.perSecond.toFixed(0), theirs.cpuPerCall.toFixed(1), theirs.p99Ms.toFixed(1)],
      ratio(ours.cpuPerCall, theirs.cpuPerCall),
      ratio(ours.perSecond, theirs.perSecond),
      ratio(ours.p99Ms, theirs.p99Ms),
      ...[sdk.perSecond.toFixed(0), ratio(ours.perSecond, sdk.perSecond)],
    ];
  });
  return markdown(columns, lines);
}

/** How far apart the doors are, one line for each group of rows. */
export function doorTable(rows: readonly CallRow[]): string {
  const columns = ["request", "CPU, dearest door to cheapest", "throughput, fastest door to slowest"];
  const groups = [...new Set(rows.map(({ group }) => group))];
  const spread = (values: readonly number[]): string => ratio(Math.max(...values), Math.min(...values));
  const lines = groups.map((group) => {
    const ours = rows.filter((row) => row.group === group).map(({ rounds }) => summary(rounds.runtime));
    return [
      group,
      spread(ours.map(({ cpuPerCall }) => cpuPerCall)),
      spread(ours.map(({ perSecond }) => perSecond)),
    ];
  });
  return markdown(columns, lines);
}

export function listTable(rows: readonly ListRow[]): string {
  const columns = [
    "request",
    ...figureColumns,
    "Buffer req/s",
    "Buffer CPU",
    "CPU ratio",
    "throughput ratio",
  ];
  const lines = rows.map(({ name, rounds }) => {
    const ours = summary(rounds.runtime);
    const theirs = summary(rounds.buffer);
    return [
      ...[name, ...cells(ours), theirs.perSecond.toFixed(0), theirs.cpuPerCall.toFixed(1)],
      ...[ratio(ours.cpuPerCall, theirs.cpuPerCall), ratio(ours.perSecond, theirs.perSecond)],
    ];
  });
  return markdown(columns, lines);
}

export function catalogTable(rows: readonly CatalogRow[]): string {
  const columns = [
    "request",
    ...figureColumns,
    "few tools req/s",
    "few tools CPU",
    "CPU ratio",
    "throughput ratio",
  ];
  const lines = rows.map(({ name, rounds }) => {
    const many = summary(rounds.many);
    const few = summary(rounds.few);
    return [
      ...[name, ...cells(many), few.perSecond.toFixed(0), few.cpuPerCall.toFixed(1)],
      ...[ratio(many.cpuPerCall, few.cpuPerCall), ratio(many.perSecond, few.perSecond)],
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
