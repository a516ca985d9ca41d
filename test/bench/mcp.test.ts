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
import { doors, firstId, requests } from "../../bench/doors.ts";
import { Child } from "../../bench/processes.ts";
import { startRuntime } from "../../bench/runtime.ts";
import { callTable, catalogTable, doorTable, listTable, type CallRow } from "../../bench/table.ts";
import { root } from "../support/runtime.ts";

const run = promisify(execFile);
const cellsOf = (row: string): string[] =>
  row
    .split("|")
    .slice(1, -1)
    .map((cell) => cell.trim());

const benchmark = join(root, "bench/mcp.ts");
const moment = ["--seconds", "0.1", "--rounds", "1", "--connections", "2", "--list-connections", "2"];

it("the benchmark prints a row for every kind, door, list and catalog, and no answer is wrong", async () => {
  const sizes = ["--tools", "3,5", "--many", "20"];
  const { stdout } = await run(process.execPath, [benchmark, ...moment, ...sizes]);
  const rows = stdout
    .split("\n")
    .filter((line) => line.startsWith("| tools/"))
    .map(cellsOf);
  const perDoor = (request: string): string[] => doors.map((door) => `${request}, ${door}`);
  expect(rows.map(([name]) => name)).toEqual([
    ...perDoor("tools/call rest"),
    ...perDoor("tools/call onex"),
    ...["tools/call rest", "tools/call onex"],
    ...perDoor("tools/list 3"),
    ...perDoor("tools/list 5"),
    ...["tools/call rest, 2026-07-28, 20 tools", "tools/call onex, 2026-07-28, 20 tools"],
  ]);
  for (const [name, ...figures] of rows)
    for (const figure of figures) expect(Number(figure), name).toBeGreaterThanOrEqual(0);
  expect(stdout).toContain("wrong answers: 0");
}, 120_000);

it.each([
  ["--tools", "10,5000", "--tools 5000: expected a number from 2 to 1000\n"],
  ["--rounds", "", "--rounds : expected a number from 1 to 100\n"],
  ["--only", "calls,all", "--only all: expected some of calls, lists, catalog\n"],
])("the benchmark refuses %s %s", async (name, value, stderr) => {
  const running = run(process.execPath, [benchmark, name, value]);
  await expect(running).rejects.toMatchObject({ code: 2, stderr });
});

it("service and answer are the same, whichever gateway is between them", async () => {
  const seen: string[][] = [];
  await using service = await serve((request, response) => {
    const { host: _, ...headers } = request.headers;
    seen.push(Object.keys(headers).sort());
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      response.setHeader("content-type", "application/json");
      const body = JSON.parse(Buffer.concat(chunks).toString());
      response.end(JSON.stringify(request.url === "/onex" ? body.payload : body));
    });
  });
  const address = service.url.origin;
  await using runtime = await startRuntime(address, 2);
  const answers: unknown[][] = [];
  for (const kind of ["rest", "onex"]) {
    const found: unknown[] = [];
    for (const program of ["baseline.ts", "sdk-server.ts", undefined]) {
      await using stack = new AsyncDisposableStack();
      let url = new URL(runtime.url);
      if (program !== undefined) {
        const child = stack.use(new Child("gateway", [join(root, "bench", program)]));
        const { port } = await child.ask<{ port: number }>({ service: address });
        url = new URL(`http://127.0.0.1:${port}/mcp`);
      }
      const connection = stack.adopt(await Connection.open(url), (one) => one.close());
      const request = requests(url, "2026-07-28", { tool: `echo_${kind}` }, undefined)(firstId(0));
      const { result } = JSON.parse((await connection.exchange(request)).body.toString());
      found.push([result.content, result.structuredContent, result.resultType]);
    }
    answers.push(found);
  }
  for (const [baseline, sdk, ours] of answers) {
    expect(ours).toEqual(baseline);
    expect(sdk).toEqual(baseline);
  }
  // What of the call is left is known to the runtime only.
  const theirs = seen.map((names) => names.filter((name) => !/timeout|deadline/.test(name)));
  expect(new Set(theirs.map(String)).size, theirs.map(String).join("\n")).toBe(1);
}, 60_000);

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

const figures = (perSecond: number, cpuPerCall: number) => ({ perSecond, cpuPerCall, p50Ms: 1, p99Ms: 2 });
const row = (group: string, cpuPerCall: number, perSecond: number): CallRow => ({
  group,
  name: `${group}, a door`,
  rounds: {
    runtime: [figures(1, 900), figures(perSecond, cpuPerCall), figures(perSecond + 100, 1)],
    baseline: [figures(1000, 30), figures(2000, 20)],
    sdk: [figures(100, 400)],
  },
});

it("the tables show medians and ratios", () => {
  const [, , calls] = callTable([row("tools/call", 60, 500)]).split("\n");
  expect(cellsOf(calls ?? "")).toEqual([
    ...["tools/call, a door", "500", "60.0", "1.0", "2.0", "1500", "25.0", "2.0"],
    ...["2.40", "0.33", "1.00", "100", "5.00"],
  ]);
  const [, , lists] = listTable([
    { name: "tools/list", rounds: { runtime: [figures(500, 60)], buffer: [figures(1000, 40)] } },
  ]).split("\n");
  expect(cellsOf(lists ?? "")).toEqual([
    ...["tools/list", "500", "60.0", "1.0", "2.0", "1000", "40.0", "1.50", "0.50"],
  ]);
  const [, , catalog] = catalogTable([
    { name: "tools/call", rounds: { many: [figures(500, 60)], few: [figures(1000, 40)] } },
  ]).split("\n");
  expect(cellsOf(catalog ?? "")).toEqual([
    ...["tools/call", "500", "60.0", "1.0", "2.0", "1000", "40.0", "1.50", "0.50"],
  ]);
});

it("the table of doors shows how far apart the best and the worst of a kind are", () => {
  const lines = doorTable([row("rest", 60, 500), row("rest", 40, 1000), row("onex", 50, 500)]).split("\n");
  expect(lines.slice(2).map(cellsOf)).toEqual([
    ["rest", "1.50", "2.00"],
    ["onex", "1.00", "1.00"],
  ]);
});
