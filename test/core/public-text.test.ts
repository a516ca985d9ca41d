import { open } from "node:fs/promises";
import { connect } from "node:net";
import { expect, test } from "vitest";
import { publicMessage, withoutInternals } from "../../src/core/public-text.ts";

const refused = async (host: string): Promise<unknown> => {
  const { promise, resolve } = Promise.withResolvers<unknown>();
  connect({ host, port: 1 }).once("error", resolve);
  return await promise;
};

test("a failed system call keeps its sentence and loses the file's folder and the address", async () => {
  const missing: unknown = await open("/nowhere/secret/place.txt").catch((error: unknown) => error);
  expect(publicMessage(missing)).toMatch(/^ENOENT: .*'place\.txt'$/);
  expect(publicMessage(await refused("127.0.0.1"))).toBe("connect ECONNREFUSED the server");
});

test("none of several failed connections names its address", async () => {
  const attempts = new AggregateError([await refused("127.0.0.1"), await refused("127.0.0.2")]);
  expect(publicMessage(attempts)).toBe("connect ECONNREFUSED the server; connect ECONNREFUSED the server");
});

test("a text goes without its stack and without absolute paths, and is cut at 2,000 characters", () => {
  expect(withoutInternals("no\n    at f (/srv/app/x.ts:1:2)")).toBe("no");
  expect(withoutInternals("cannot read /home/me/app/config.yaml")).toBe("cannot read config.yaml");
  expect(withoutInternals("GET /users/7 failed")).toBe("GET /users/7 failed");
  expect(withoutInternals("x".repeat(3000))).toBe(`${"x".repeat(2000)}…`);
});

test("a value whose getters throw has a text all the same", () => {
  const hostile = Object.defineProperty(new Error("kept"), "path", {
    get() {
      throw new Error("no");
    },
  });
  expect(publicMessage(hostile)).toBe("kept");
});
