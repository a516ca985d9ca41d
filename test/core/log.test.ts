import { execFile } from "node:child_process";
import { promisify, stripVTControlCharacters } from "node:util";
import { describe, expect, it } from "vitest";
import { silentLogger } from "../../src/core/log.ts";

const run = promisify(execFile);
const logModule = new URL("../../src/core/log.ts", import.meta.url).href;
const errorsModule = new URL("../../src/core/errors.ts", import.meta.url).href;

/** Runs a program with `log` in a process whose stderr is a pipe. */
async function logged(body: string, options = "{}"): Promise<{ stdout: string; stderr: string }> {
  const program = `
    import { createLogger } from ${JSON.stringify(logModule)};
    import { InfraConnectionError } from ${JSON.stringify(errorsModule)};
    const log = createLogger(${options});
    ${body}`;
  return run(process.execPath, ["--input-type=module", "--eval", program]);
}

async function lines(body: string, options?: string): Promise<Record<string, unknown>[]> {
  const { stdout, stderr } = await logged(body, options);
  expect(stdout).toBe("");
  return stderr
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe("the logger", () => {
  it("writes JSON lines to stderr, and nothing to stdout, where stderr is no terminal", async () => {
    const [line, child] = await lines(`
      log.info({ port: 8090 }, "listening");
      log.child({ source: "files" }).warn({ count: 2 }, "dropped");`);
    expect(line).toEqual({
      level: "info",
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      port: 8090,
      msg: "listening",
    });
    expect(child).toMatchObject({ level: "warn", source: "files", count: 2, msg: "dropped" });
  });

  it("writes a readable line where pretty is asked for", async () => {
    const { stdout, stderr } = await logged('log.info({ port: 8090 }, "listening");', '{ format: "pretty" }');
    expect(stdout).toBe("");
    expect(stripVTControlCharacters(stderr)).toMatch(/INFO: listening \{"port":8090\}/);
  });

  it("writes from its level upwards", async () => {
    const written = await lines(
      'for (const level of ["debug", "info", "warn", "error"]) log[level]({}, level);',
      '{ level: "warn" }',
    );
    expect(written.map((line) => line.msg)).toEqual(["warn", "error"]);
    await expect(lines('log.error({}, "x");', '{ level: "silent" }')).resolves.toEqual([]);
  });

  it("never writes the value of a secret key, at any depth, however the key is written", async () => {
    const { stderr } = await logged(`
      const config = { consul_token: "hush1", nested: { deeper: { still: { apiKeys: ["hush2"], "X-API-Key": "hush3" } } } };
      log.info({ config, password: "hush4", headers: { "x-custom": "hush5" } }, "started");
      log.child({ sessionSecret: "hush6" }).child({ sasl: { password: "hush7" } }).info({}, "child");
      log.error({ err: Object.assign(new Error("refused"), { request: { authorization: "hush8" } }) }, "failed");
      log.info({ url: "http://user:hush9@consul:8500/" }, "connecting");`);
    expect(stderr.trim().split("\n")).toHaveLength(4);
    expect(stderr).not.toContain("hush");
    expect(stderr.match(/\[redacted\]/g)).toHaveLength(9);
  });

  it("never writes a value it was told is secret, whatever its key, in fields, errors and messages", async () => {
    const { stderr } = await logged(
      `log.warn({ host: "at-hush-me", err: new Error("hush-me refused") }, "hush-me is down");
       log.child({ where: "hush-me" }).info({}, "child");`,
      '{ secrets: new Set(["hush-me"]) }',
    );
    expect(stderr).toContain("[redacted] is down");
    expect(stderr).not.toContain("hush-me");
  });

  it.each(["err", "failure"])(
    "writes an error under %s with its facts, its stack and its causes",
    async (key) => {
      const [line] = await lines(`
      const cause = new AggregateError([new Error("refused ::1"), new Error("refused 127.0.0.1")]);
      const ${key} = new InfraConnectionError("no consul", { cause, facts: { transport: "consul" } });
      log.error({ ${key} }, "down");`);
      expect(line?.[key]).toMatchObject({
        name: "InfraConnectionError",
        message: "no consul",
        code: "ONEX_CORE_205_SERVICE_UNAVAILABLE",
        facts: { transport: "consul" },
        stack: expect.stringContaining("no consul"),
        cause: {
          name: "AggregateError",
          errors: [{ message: "refused ::1" }, { message: "refused 127.0.0.1" }],
        },
      });
      expect(line?.[key]).not.toHaveProperty("type");
    },
  );

  it("never fails its caller, whatever the fields are", async () => {
    const written = await lines(`
      const cycle = { name: "loop" };
      cycle.self = cycle;
      log.info({ cycle }, "a cycle");
      log.info({ big: 12n, at: new Date(0), frozen: Object.freeze(new Error("e")) }, "values");
      log.info({ get bad() { throw new Error("no field"); } }, "a getter");
      log.child({ toJSON() { throw new Error("no child"); } }).info({}, "a child");`);
    expect(written.map((line) => line.msg)).toEqual(["a cycle", "values", "a getter", "a child"]);
    expect(written[1]).toMatchObject({ big: "12", at: "1970-01-01T00:00:00.000Z", frozen: { message: "e" } });
    expect(written[2]).toMatchObject({ unwritable_fields: "no field" });
    expect(written[3]).toMatchObject({ unwritable_fields: "no child" });
  });
});

describe("the silent logger", () => {
  it("is its own child", () => {
    expect(silentLogger.child({ a: 1 })).toBe(silentLogger);
  });
});
