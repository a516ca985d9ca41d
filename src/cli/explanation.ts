/** The reasons for a name being served, or not, as text for people. Pure. */
import { isObject } from "../core/json.ts";
import { columns } from "./columns.ts";

/** @param explanation as the admin route gives it */
export function explanationText(explanation: Readonly<Record<string, unknown>>): string {
  const { name, served, reason, records, endpoints } = explanation;
  const lines = [`${text(name)} is ${served === true ? "served" : "not served"}: ${text(reason)}\n`];
  for (const url of Array.isArray(endpoints) ? endpoints : []) lines.push(`  called at ${text(url)}\n`);
  const rows = (Array.isArray(records) ? records : []).filter(isObject).map(row);
  if (rows.length > 0) lines.push("\n", columns(rows));
  return lines.join("");
}

function row(record: Record<string, unknown>): readonly [string, string] {
  const { source, key, version, revision, age_seconds: age, url, used, reason } = record;
  const facts = [
    ...(version === null ? [] : [`version ${text(version)}`]),
    ...(revision === null ? [] : [`revision ${text(revision)}`]),
    ...(url === null ? [] : [text(url)]),
    ...(typeof age === "number" ? [`learnt ${Math.round(age)} s ago`] : []),
  ];
  return [
    `${used === true ? "+" : "-"} ${text(source)} ${text(key)}`,
    `${text(reason)}${facts.length === 0 ? "" : ` (${facts.join(", ")})`}`,
  ];
}

const text = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
