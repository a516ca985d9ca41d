/** The reasons for a name being served, or not, as text for people. Pure. */
import { isObject } from "../core/json.ts";
import { columns, plain } from "./columns.ts";

/** @param explanation as the admin route gives it */
export function explanationText(explanation: Readonly<Record<string, unknown>>): string {
  const { name, served, reason, records, endpoints, problems } = explanation;
  const lines = [`${text(name)} is ${served === true ? "served" : "not served"}: ${text(reason)}\n`];
  for (const url of Array.isArray(endpoints) ? endpoints : []) lines.push(`  called at ${text(url)}\n`);
  const rows = (Array.isArray(records) ? records : []).filter(isObject).map(row);
  if (rows.length > 0) lines.push("\n", columns(rows));
  const troubles = (Array.isArray(problems) ? problems : []).filter(isObject).map(trouble);
  if (troubles.length > 0) lines.push("\n", columns(troubles));
  return lines.join("");
}

function row(record: Record<string, unknown>): readonly [string, string] {
  const { source, key, version, revision, age_seconds: age, url, used, reason } = record;
  const { restored_from: savedAt } = record;
  const facts = [
    ...(version === null ? [] : [`version ${text(version)}`]),
    ...(revision === null ? [] : [`revision ${text(revision)}`]),
    ...(url === null ? [] : [text(url)]),
    ...(typeof savedAt === "string" ? [`saved at ${savedAt} and not confirmed since`] : []),
    ...(typeof age === "number" && typeof savedAt !== "string" ? [`learnt ${Math.round(age)} s ago`] : []),
  ];
  return [
    `${used === true ? "+" : "-"} ${text(source)} ${text(key)}`,
    `${text(reason)}${facts.length === 0 ? "" : ` (${facts.join(", ")})`}`,
  ];
}

const trouble = ({ source, about, reason }: Record<string, unknown>): readonly [string, string] => [
  `! ${text(source)} ${text(about)}`,
  text(reason),
];

const text = (value: unknown): string => plain(typeof value === "string" ? value : JSON.stringify(value));
