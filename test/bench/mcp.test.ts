/** The benchmark works, and would notice wrong answers. What it measures is not tested. */
import { execFile, fork } from "node:child_process";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { Connection } from "../../bench/connection.ts";
import type { Job, Outcome } from "../../bench/load.ts";
import { table } from "../../bench/table.ts";
import { root } from "../support/runtime.ts";

const run = promisify(execFile);

it("the benchmark prints a row for every kind, door and list, and no answer is wrong", async () => {
  const options = ["--seconds", "0.1", "--rounds", "1", "--connections", "2", "--list-connections", "2"];
  const { stdout } = await run(process.execPath, [join(root, "bench/mcp.ts"), ...options, "--tools", "3,5"]);
  const rows = stdout.split("\n").filter((line) => line.startsWith("| tools/"));
  const doors = ["2025-11-25", "2025-11-25 session", "2026-07-28"];
  expect(rows.map((row) => row.split("|")[1]?.trim())).toEqual(
    ["tools/call rest", "tools/call onex", "tools/list 3", "tools/list 5"].flatMap((request) =>
      doors.map((door) => `${request}, ${door}`),
    ),
  );
  for (const row of rows) {
    const figures = row.split("|").slice(2, -1).map(Number);
    expect(figures).toHaveLength(8);
    for (const figure of figures) expect(figure).toBeGreaterThanOrEqual(0);
    expect(figures[0], "requests per second").toBeGreaterThan(0);
  }
  expect(stdout).toContain("wrong answers: 0");
}, 120_000);

it("the benchmark refuses an option that is out of its range", async () => {
  const running = run(process.execPath, [join(root, "bench/mcp.ts"), "--tools", "10,5000"]);
  await expect(running).rejects.toMatchObject({
    code: 2,
    stderr: "--tools 5000: expected a number from 2 to 1000\n",
  });
});

/** A server for one test, on a free port. */
async function serve(listener: RequestListener): Promise<{ url: URL } & AsyncDisposable> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** What a right answer to call `id` says. */
const right = (id: number) => ({ structuredContent: { text: `the text of call ${id}` } });

it.each<[string, (id: number) => { status: number; body?: object }]>([
  ["another id", (id) => ({ status: 200, body: { id: id + 1, result: right(id) } })],
  ["another call's text", (id) => ({ status: 200, body: { id, result: right(id + 1) } })],
  ["an error result", (id) => ({ status: 200, body: { id, result: { ...right(id), isError: true } } })],
  ["a protocol error", (id) => ({ status: 200, body: { id, error: { code: -32603 } } })],
  ["another status", (id) => ({ status: 500, body: { id, result: right(id) } })],
  ["no JSON", () => ({ status: 200 })],
])("the load counts every answer with %s as wrong", async (_, answer) => {
  await using server = await serve((request, response) => {
    request.once("data", (body: Buffer) => {
      const { status, body: content } = answer(JSON.parse(body.toString()).id);
      response.writeHead(status).end(content === undefined ? "<html>" : JSON.stringify(content));
    });
  });
  const job: Job = {
    url: server.url.href,
    door: "2025-11-25",
    question: { tool: "echo" },
    tools: 0,
    connections: 1,
    warmUpSeconds: 0,
    seconds: 0.02,
  };
  const load = fork(join(root, "bench/load.ts"));
  load.send(job);
  await once(load, "message");
  load.send("go");
  const [outcome] = (await once(load, "message")) as [Outcome];
  expect(outcome.calls).toBeGreaterThan(0);
  expect(outcome.wrong).toBe(outcome.calls);
  load.kill();
  await once(load, "exit");
});

it("the load reads answers of any length and framing, in whatever pieces they come", async () => {
  const long = "0\r\n\r\n".repeat(100_000);
  await using server = await serve((request, response) => {
    if (request.method === "GET") response.end("plain");
    else if (request.method === "PUT") response.writeHead(202).end();
    else {
      response.write(long);
      setImmediate(() => response.end("end"));
    }
  });
  const connection = await Connection.open(server.url);
  const ask = (method: string): Promise<{ status: number; body: Buffer }> =>
    connection.exchange(`${method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n`);
  for (let round = 0; round < 2; round++) {
    expect((await ask("GET")).body.toString()).toBe("plain");
    expect((await ask("POST")).body.toString() === `${long}end`).toBe(true);
    expect(await ask("PUT")).toMatchObject({ status: 202, body: Buffer.alloc(0) });
  }
  connection.close();
});

it("the table shows medians and ratios to the baseline", () => {
  const figures = (perSecond: number, cpuPerCall: number) => ({ perSecond, cpuPerCall, p50Ms: 1, p99Ms: 2 });
  const text = table([
    {
      name: "tools/call",
      runtime: [figures(1, 900), figures(500, 60), figures(600, 40)],
      baseline: [figures(1000, 30), figures(2000, 20)],
    },
  ]);
  const cells = text
    .split("\n")[2]
    ?.split("|")
    .map((cell) => cell.trim());
  expect(cells).toEqual(["", "tools/call", "500", "60", "1.0", "2.0", "1500", "25", "0.33", "2.40", ""]);
});
