import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { InfraTimeoutError } from "../../src/core/errors.ts";
import { readinessHeader, readinessProof, waitUntilReady } from "../../src/http/readiness.ts";
import type { ListenOptions } from "../../src/http/server.ts";
import { hasIPv6, serve } from "./sockets.ts";

const token = "the secret of this start";

const proving =
  (secret: string, status = 200): ListenOptions["fetch"] =>
  (request) => {
    const proof = readinessProof(secret, request.headers.get(readinessHeader) ?? "");
    return new Response("{}", { status, headers: proof === undefined ? {} : { [readinessHeader]: proof } });
  };

test("our own server proves itself through the real socket", async () => {
  const server = await serve({ fetch: proving(token) });
  await waitUntilReady(server, { token, timeoutMs: 5_000 });
});

test.skipIf(!hasIPv6)("an IPv6 server and one bound to every IPv6 interface are reached", async () => {
  for (const host of ["::1", "::"]) {
    const server = await serve({ host, fetch: proving(token) });
    await waitUntilReady(server, { token, timeoutMs: 5_000 });
  }
});

test("a server bound to every interface is reached over loopback", async () => {
  const server = await serve({ host: "0.0.0.0", fetch: proving(token) });
  await waitUntilReady(server, { token, timeoutMs: 5_000 });
});

test("polling goes on until the server is ready", async () => {
  const states = [503, 503, 200];
  const fetch = vi.fn<ListenOptions["fetch"]>((request, env) =>
    proving(token, states.shift() ?? 200)(request, env),
  );
  const server = await serve({ fetch });
  await waitUntilReady(server, { token, timeoutMs: 5_000, intervalMs: 5 });
  expect(fetch).toHaveBeenCalledTimes(3);
});

test("another server on the port is not taken for ours", async () => {
  const server = await serve({ fetch: proving("the secret of another start") });
  const waiting = waitUntilReady(server, { token, timeoutMs: 150, intervalMs: 10 });
  await expect(waiting).rejects.toThrow(/another server answers there \(status 200, no valid proof\)/);
  await expect(waiting).rejects.toMatchObject({ facts: { timeout_seconds: 0.15 } });
});

test("a server that echoes every header proves nothing", async () => {
  const echo = createServer((req, res) => {
    res.setHeader(readinessHeader, req.headers[readinessHeader] ?? "").end("{}");
  });
  await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void echo.close());
  const { port } = echo.address() as AddressInfo;
  await expect(
    waitUntilReady({ host: "127.0.0.1", port }, { token, timeoutMs: 100, intervalMs: 10 }),
  ).rejects.toThrow(/another server/);
});

test("an answer without proof whose body never ends is let go of", async () => {
  let strange = true;
  const server = await serve({
    fetch: proving(token),
    raw: (_req, res) => {
      if (!strange) return false;
      strange = false;
      return res.write("x") || true;
    },
  });
  await waitUntilReady(server, { token, timeoutMs: 5_000, intervalMs: 10 });
  await vi.waitFor(() => expect(server.connections).toBe(0));
});

test("a server that accepts and never answers runs into the time limit", async () => {
  const server = await serve({ fetch: () => new Promise<Response>(() => undefined) });
  await expect(waitUntilReady(server, { token, timeoutMs: 100 })).rejects.toThrow(InfraTimeoutError);
});

test("where nobody listens the error says so", async () => {
  const server = await serve();
  await server.close();
  await expect(waitUntilReady(server, { token, timeoutMs: 100, intervalMs: 10 })).rejects.toThrow(
    /ECONNREFUSED/,
  );
});

test("an aborted start ends the polling with its own reason", async () => {
  const server = await serve({ fetch: () => new Promise<Response>(() => undefined) });
  const controller = new AbortController();
  const waiting = waitUntilReady(server, { token, timeoutMs: 60_000 }, controller.signal);
  controller.abort(new Error("stopped while starting"));
  await expect(waiting).rejects.toThrow("stopped while starting");
});

test("the proof is given for a nonce only, and differs with secret and nonce", () => {
  const nonce = "0123456789abcdef0123456789abcdef";
  expect(readinessProof(token, "")).toBeUndefined();
  expect(readinessProof(token, "x".repeat(10_000))).toBeUndefined();
  expect(readinessProof(token, nonce)).toMatch(/^[0-9a-f]{64}$/);
  expect(readinessProof(token, nonce)).not.toBe(readinessProof("other", nonce));
  expect(readinessProof(token, nonce)).not.toContain(token);
});
