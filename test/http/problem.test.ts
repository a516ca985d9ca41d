import { expect, test } from "vitest";
import { InfraUnavailableError, RuntimeHostError, UnknownHandlerTypeError } from "../../src/core/errors.ts";
import { problem, problemOf } from "../../src/http/problem.ts";

test("a problem is RFC 9457 JSON that nobody caches", async () => {
  const answer = problem(404, { detail: "There is nothing at this path.", instance: "/x" });
  expect(answer.status).toBe(404);
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(answer.headers.get("cache-control")).toBe("no-store");
  expect(await answer.json()).toEqual({
    type: "about:blank",
    title: "Not Found",
    status: 404,
    detail: "There is nothing at this path.",
    code: "ONEX_CORE_085_RESOURCE_NOT_FOUND",
    instance: "/x",
  });
});

test("an error is told by its public text, code and status, never by its message", async () => {
  const answer = problemOf(new RuntimeHostError("connect 10.0.0.7:5432 failed in /srv/app.ts"));
  expect(await answer.json()).toEqual({
    type: "about:blank",
    title: "Internal Server Error",
    status: 500,
    detail: "The operation failed.",
    code: "ONEX_CORE_081_OPERATION_FAILED",
  });
  expect(problemOf(new UnknownHandlerTypeError("nothing serves x.y")).status).toBe(404);
  expect(await problemOf("a thrown string with a secret").text()).not.toContain("secret");
});

test("retry-after is sent in whole seconds where the error knows it", () => {
  const answer = problemOf(new InfraUnavailableError("open", { facts: { retry_after_seconds: 1.2 } }));
  expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "2"]);
});

test("401 carries a challenge and own headers are added", () => {
  expect(problem(401).headers.get("www-authenticate")).toBe('Bearer realm="onex-runtime"');
  expect(problem(405, { headers: { allow: "GET" } }).headers.get("allow")).toBe("GET");
});

test.each([400, 401, 403, 404, 405, 408, 413, 415, 499, 500, 503, 504])(
  "status %d has a code of the table",
  async (status) => {
    expect(await problem(status).json()).toMatchObject({
      status,
      code: expect.stringMatching(/^ONEX_CORE_\d{3}_/),
    });
  },
);
