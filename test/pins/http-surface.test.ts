/** Every route and method of the gateway and of the operator port, with its status and what it answers with. */
import { expect, test } from "vitest";
import { startRuntime } from "../support/runtime.ts";

const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** With paths that later releases may serve: they answer 404 until then. */
const gatewayPaths = [
  "/mcp",
  "/health",
  "/ready",
  "/mcp/tools",
  "/mcp/tools/wait/explain",
  "/mcp/servers",
  "/mcp/health",
  "/mcp/call",
  "/mcp/circuit-breakers",
  "/mcp/circuit-breakers/http%3A%2F%2F127.0.0.1%3A9/reset",
  "/sse",
  "/messages",
  "/metrics",
  "/openapi.json",
  "/",
];
const operatorPaths = ["/health", "/ready", "/envelopes", "/metrics", "/"];

/** Status, type and Allow. */
async function answerTo(url: URL, method: string): Promise<string> {
  const hasBody = ["POST", "PUT", "PATCH"].includes(method);
  const response = await fetch(url, {
    method,
    ...(hasBody && { headers: { "content-type": "application/json" }, body: "{}" }),
  });
  await response.arrayBuffer();
  const allow = response.headers.get("allow");
  const facts = [response.status, response.headers.get("content-type"), allow && `allow: ${allow}`];
  return facts.filter((fact) => fact !== null).join("  ");
}

/** A line for each method of each path; one line where all methods have the same answer. */
async function surface(origin: string, paths: readonly string[]): Promise<string[]> {
  const lines: string[] = [];
  for (const path of paths) {
    const url = new URL(path, origin);
    const answers = await Promise.all(methods.map((method) => answerTo(url, method)));
    if (new Set(answers).size === 1) lines.push(`${path}  any method  ${answers[0]}`);
    else lines.push(...methods.map((method, index) => `${path}  ${method}  ${answers[index]}`));
  }
  return lines;
}

test("the routes of the gateway and of the operator port, with methods and status", async () => {
  await using runtime = await startRuntime();
  const text = [
    "gateway",
    ...(await surface(runtime.mcp.origin, gatewayPaths)),
    "",
    "operator port",
    ...(await surface(runtime.operators.origin, operatorPaths)),
    "",
  ].join("\n");
  await expect(text).toMatchFileSnapshot("http-surface.txt");
});
