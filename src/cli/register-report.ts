/** What `onex register` and `onex deregister` have done, as it is printed. */
import type { Writable } from "node:stream";
import type { ConsulRegistration } from "../discovery/consul-client.ts";
import type { RegistrationPlan } from "../discovery/register-service.ts";
import { print } from "./stdout.ts";

/** One service. */
export interface Row {
  readonly id: string;
  readonly service: string | null;
  readonly tool: string | null;
  /** `host:port`. */
  readonly address: string | null;
  /** Kind of the check. */
  readonly check: string | null;
  /** What became of it in Consul. */
  readonly consul: string;
  /** What became of its event. */
  readonly event: string;
}

/** Filled as the work goes on. */
export interface Report {
  readonly services: Row[];
  /** What to know besides. */
  readonly notes: string[];
  /** Any: the exit code is 1. */
  readonly failures: string[];
}

export const noEvent = "-";

export function rowOf(
  { id, name, address = "", port = 0, check }: ConsulRegistration,
  outcome: { readonly tool?: string; readonly consul: string; readonly event: string },
): Row {
  const kind = ["http", "tcp", "ttl"].find((key) => check !== undefined && key in check) ?? "none";
  return { id, service: name, tool: null, address: `${address}:${port}`, check: kind, ...outcome };
}

export const dryRow = (id: string): Row => ({
  id,
  service: null,
  tool: null,
  address: null,
  check: null,
  consul: "would be taken out",
  event: noEvent,
});

export const dryRows = ({ self, tools }: RegistrationPlan, consul: string): Row[] => [
  ...(self === undefined ? [] : [rowOf(self, { consul, event: noEvent })]),
  ...tools.map(({ registration, toolName: tool }) => rowOf(registration, { tool, consul, event: noEvent })),
];

/** Services to stdout, the rest to stderr; all of it to stdout as JSON. Resolves with the exit code. */
export async function printReport(stdout: Writable, report: Report, json: boolean): Promise<number> {
  const { services, notes, failures } = report;
  if (json) await print(stdout, `${JSON.stringify(report, null, 2)}\n`);
  else await print(stdout, services.length === 0 ? "" : table(services));
  if (!json) for (const note of notes) process.stderr.write(`note: ${note}\n`);
  if (!json && services.length === 0 && failures.length === 0)
    process.stderr.write("note: there is nothing to do\n");
  for (const failure of failures) process.stderr.write(`onex: ${failure}\n`);
  return failures.length === 0 ? 0 : 1;
}

function table(rows: readonly Row[]): string {
  const keys = ["id", "tool", "address", "check", "consul", "event"] as const;
  const lines = [
    keys.map((key) => key.toUpperCase()),
    ...rows.map((row) => keys.map((key) => row[key] ?? "-")),
  ];
  const widths = keys.map((_, at) => Math.max(...lines.map((cells) => cells[at]?.length ?? 0)));
  return lines
    .map(
      (cells) =>
        `${cells
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}
