import { describe, expect, test } from "vitest";
import { Outgoing, planOf } from "../../src/execution/request.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { callOf, executorOf, json, never, onex, rest, service, textOf, type Reply } from "./helpers.ts";

/** The requests of one call, of which the first `failing` are answered by a 500. */
async function requestsOf(toolAt: (origin: string) => Tool, failing = 0, options = {}) {
  let left = failing;
  const reply: Reply = (_request, response) => json(response, "answer", left-- > 0 ? 500 : 200);
  const { origin, requests } = await service(reply);
  const result = await executorOf([toolAt(origin)], options).call(callOf(), never);
  expect(textOf(result)).toBe("answer");
  return requests;
}

const idempotent = { annotations: { idempotent: true } };
const uuid = '"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"';

describe("X-Request-Timeout-Ms", () => {
  test.each<[string, (origin: string) => Tool]>([
    ["onex", (origin) => onex(origin, "/run", { timeoutSeconds: 7 })],
    ["rest", (origin) => rest({ method: "GET", url: `${origin}/` }, { timeoutSeconds: 7 })],
  ])("tells a service of kind %s what is left of the deadline", async (_kind, toolAt) => {
    const [request] = await requestsOf(toolAt, 0, { clock: { now: () => 1.5 } });
    expect(request?.headers["x-request-timeout-ms"]).toBe("7000");
  });

  test("is the runtime's deadline where the tool has none", async () => {
    const [request] = await requestsOf((origin) => onex(origin), 0, { clock: { now: () => 0 } });
    expect(request?.headers["x-request-timeout-ms"]).toBe("20000");
  });

  test("is less on each attempt, in whole milliseconds", async () => {
    const requests = await requestsOf((origin) => onex(origin, "/run", idempotent), 3);
    const left = requests.map(({ headers }) => Number(headers["x-request-timeout-ms"]));
    expect(left).toHaveLength(4);
    expect(left.every((ms) => Number.isInteger(ms) && ms <= 20_000)).toBe(true);
    expect(left).toEqual(left.toSorted((a, b) => b - a));
    expect(new Set(left).size).toBe(4);
  });

  test("is never less than 1", () => {
    const { headers } = planOf(onex("http://a"), "http://a").build(new Outgoing(callOf()), -30);
    expect(headers[headers.indexOf("X-Request-Timeout-Ms") + 1]).toBe("1");
  });

  test("is the contract's own where that sets it", async () => {
    const [request] = await requestsOf((origin) =>
      rest({ method: "GET", url: `${origin}/`, headers: { "x-request-timeout-ms": "5" } }),
    );
    expect(request?.headers["x-request-timeout-ms"]).toBe("5");
  });
});

describe("Idempotency-Key", () => {
  const keys = (requests: readonly { headers: Record<string, unknown> }[]) =>
    requests.map(({ headers }) => headers["idempotency-key"]);

  test.each<[string, (origin: string) => Tool]>([
    ["onex", (origin) => onex(origin, "/run", idempotent)],
    ["rest, POST", (origin) => rest({ method: "POST", url: `${origin}/` }, idempotent)],
    ["rest, PATCH", (origin) => rest({ method: "patch", url: `${origin}/` }, idempotent)],
  ])("of an idempotent tool (%s) is a quoted string, the same on every attempt", async (_kind, toolAt) => {
    const requests = await requestsOf(toolAt, 2);
    const [key, ...others] = keys(requests);
    expect(key).toMatch(new RegExp(`^${uuid}$`));
    expect(others).toEqual([key, key]);
  });

  test("is another one for each call", async () => {
    const { origin, requests } = await service((_request, response) => json(response, 1));
    const executor = executorOf([onex(origin, "/run", idempotent)]);
    for (let n = 0; n < 3; n++) await executor.call(callOf(), never);
    expect(new Set(keys(requests)).size).toBe(3);
  });

  test.each<[string, (origin: string) => Tool]>([
    ["of other methods", (origin) => rest({ method: "PUT", url: `${origin}/` }, idempotent)],
    ["of GET", (origin) => rest({ method: "GET", url: `${origin}/` }, idempotent)],
    ["of tools that are not idempotent", (origin) => onex(origin)],
    [
      "of tools that only read",
      (origin) => onex(origin, "/run", { annotations: { readOnly: true, idempotent: false } }),
    ],
  ])("is not sent in requests %s", async (_title, toolAt) => {
    expect(keys(await requestsOf(toolAt))).toEqual([undefined]);
  });

  test("is the contract's own where that sets it", async () => {
    const requests = await requestsOf(
      (origin) =>
        rest({ method: "POST", url: `${origin}/`, headers: { "Idempotency-Key": '"own"' } }, idempotent),
      1,
    );
    expect(keys(requests)).toEqual(['"own"', '"own"']);
  });
});

test("attempts of one call have one envelope id, one correlation id and one trace", async () => {
  const requests = await requestsOf((origin) => onex(origin, "/run", idempotent), 3);
  const ids = requests.map(({ body, headers }) => {
    const { envelope_id, correlation_id } = JSON.parse(body) as Record<string, unknown>;
    return JSON.stringify([envelope_id, correlation_id, headers["x-correlation-id"], headers.traceparent]);
  });
  expect(ids).toHaveLength(4);
  expect(new Set(ids).size).toBe(1);
});
