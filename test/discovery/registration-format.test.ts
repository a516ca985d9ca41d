/** The published format of registration events: schema, page and reader say the same. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import { registrationReader } from "../../src/discovery/registration-event.ts";
import { blocksOf, root, tableOf } from "../docs/markdown.ts";
import { messageOf, registration } from "./registrations.ts";

const path = "docs/events.md";
const page = { path, text: readFileSync(join(root, path), "utf8") };
const schema = JSON.parse(readFileSync(join(root, "schemas/registration-event.schema.json"), "utf8")) as {
  readonly properties: Readonly<Record<string, unknown>>;
};
const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(schema);
const read = registrationReader();

const examples = blocksOf(page)
  .filter(({ info }) => info === "json event")
  .map(({ code }) => JSON.parse(code) as Record<string, unknown>);

describe("the documented examples", () => {
  it("were found", () => expect(examples).toHaveLength(3));

  it.each(examples)("are read whole, and fit the published schema: $event_type", (example) => {
    expect(read(messageOf(example))).toMatchObject({ ok: true, event: { ignored: [] } });
    expect(validate(example), JSON.stringify(validate.errors)).toBe(true);
  });
});

it("the page names every field that the schema has", () => {
  const fields = tableOf(page, "field", "type").map(([name]) => name);
  expect(fields.sort()).toEqual(Object.keys(schema.properties).sort());
});

it.each<[boolean, Record<string, unknown>]>([
  [true, {}],
  [true, { unknown: 1, execution: { kind: "onex" }, node_version: { major: 1, minor: 2, patch: 3 } }],
  [false, { event_type: "born" }],
  [false, { timeout_seconds: 301 }],
  [false, { tags: "mcp-enabled" }],
  [false, { execution: { kind: "local", module: "./a.ts" } }],
  [false, { execution: { kind: "rest", url: "http://elsewhere/" } }],
  [false, { emitted_at: "today" }],
])("the published schema and the reader agree: %s for %j", (isGood, fields) => {
  const event = registration("orders", fields);
  expect(validate(event)).toBe(isGood);
  expect(read(messageOf(event)).ok).toBe(isGood);
});
