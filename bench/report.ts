/** From what was measured to the tables of the discovery benchmark. Pure. */
import { percentile, type Series } from "./changes.ts";
import type { Load } from "./cluster.ts";
import type { Usage } from "./processes.ts";
import { markdown } from "./table.ts";

/** A process that knows what is registered, before anything changes. */
export interface Standing {
  /** From the start of the process. */
  readonly readyMs: number;
  readonly tools: number;
  readonly ready: Usage;
  readonly idle: Usage;
  readonly idleCpuPercent: number;
  /** To Consul, until it was ready; undefined: that cannot be told here. */
  readonly maxSockets: number | undefined;
}

export interface Cost extends Series {
  /** Milliseconds of CPU for each change. */
  readonly cpuMs: number;
}

export interface Run {
  readonly standing: Standing;
  readonly consul: Cost;
  readonly kafka: Cost;
}

/** The same measured for both. */
export interface Pair {
  readonly load: Load;
  readonly watcher: Run;
  readonly runtime: Run;
}

const subjects = ["runtime", "watcher"] as const;
const kinds = ["consul", "kafka"] as const;

const nameOf = ({ services, events }: Load): string => `${services} services, ${events} events`;

/** Until ready, and at rest. */
export function standingTable(pairs: readonly Pair[]): string {
  const columns = [
    "registered",
    "process",
    "ready s",
    "tools",
    "CPU s at ready",
    "RSS MB at ready",
    "RSS MB at rest",
    "CPU % at rest",
    "sockets to Consul",
  ];
  const lines = pairs.flatMap(({ load, ...runs }) =>
    subjects.map((subject) => {
      const { readyMs, tools, ready, idle, idleCpuPercent, maxSockets } = runs[subject].standing;
      return [
        nameOf(load),
        subject,
        (readyMs / 1000).toFixed(2),
        String(tools),
        (ready.cpu / 1e6).toFixed(2),
        (ready.rss / 1e6).toFixed(0),
        (idle.rss / 1e6).toFixed(0),
        idleCpuPercent.toFixed(1),
        String(maxSockets ?? "-"),
      ];
    }),
  );
  return markdown(columns, lines, 2);
}

const beginnings = {
  consul: { change: "Consul", fromSending: "PUT sent", fromAnswer: "PUT answered" },
  kafka: { change: "Kafka", fromSending: "send called", fromAnswer: "send acknowledged" },
} as const;

/** From a change until it was told. */
export function propagationTable(pairs: readonly Pair[]): string {
  const columns = [
    "change",
    "registered",
    "measured from",
    "min ms",
    "median ms",
    "p99 ms",
    "told",
    "CPU ms/change",
    "watcher min",
    "watcher median",
    "watcher p99",
    "watcher CPU",
    "median ratio",
  ];
  const lines = kinds.flatMap((kind) =>
    pairs.flatMap(({ load, runtime, watcher }) =>
      (["fromSending", "fromAnswer"] as const).map((from) => {
        const ours = runtime[kind];
        const theirs = watcher[kind];
        const figures = (values: readonly number[]): string[] =>
          [0, 0.5, 0.99].map((share) => percentile(values, share).toFixed(1));
        const ratio = percentile(ours[from], 0.5) / percentile(theirs[from], 0.5);
        return [
          beginnings[kind].change,
          nameOf(load),
          beginnings[kind][from],
          ...figures(ours[from]),
          `${ours.heard} of ${ours.changes}`,
          ours.cpuMs.toFixed(1),
          ...figures(theirs[from]),
          theirs.cpuMs.toFixed(1),
          // Both are about nothing where the answer comes last.
          from === "fromSending" ? ratio.toFixed(2) : "",
        ];
      }),
    ),
  );
  return markdown(columns, lines, 3);
}

/** What did not happen as it must. */
export function faultsOf({ load, runtime }: Pair): string[] {
  const expected = Math.max(load.services, load.ids);
  const { tools } = runtime.standing;
  return [
    ...(tools === expected
      ? []
      : [`${nameOf(load)}: ${tools} tools were served when ready, not ${expected}`]),
    ...kinds.flatMap((kind) => {
      const { heard, changes } = runtime[kind];
      const what = `${nameOf(load)}: ${changes} changes in ${kind} were told by ${heard} notifications`;
      return heard === changes ? [] : [what];
    }),
  ];
}
