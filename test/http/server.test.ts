import { describe, expect, test, vi } from "vitest";
import { EnvelopeValidationError, ProtocolConfigurationError } from "../../src/core/errors.ts";
import { listen } from "../../src/http/server.ts";
import { gate, hasIPv6, rawClient, serve } from "./sockets.ts";

const programs = [globalThis.Request, globalThis.Response];

describe("binding", () => {
  test("port 0 picks a free port and reports it", async () => {
    const server = await serve();
    expect(server.port).toBeGreaterThan(0);
    expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
    expect(await (await fetch(server.url)).text()).toBe("ok");
  });

  test("a taken port is a configuration error that names host, port and the remedy", async () => {
    const first = await serve();
    const second = listen({ host: "127.0.0.1", port: first.port, fetch: () => new Response() });
    await expect(second).rejects.toThrow(ProtocolConfigurationError);
    await expect(second).rejects.toThrow(
      `cannot listen on 127.0.0.1 port ${first.port}: the port is taken; stop the program that holds it, or set another port`,
    );
    expect(await (await fetch(first.url)).text()).toBe("ok");
  });

  test("a host that is not of this machine is a configuration error", async () => {
    const attempt = listen({ host: "192.0.2.1", port: 0, fetch: () => new Response() });
    await expect(attempt).rejects.toThrow(/192\.0\.2\.1 port 0: the host is no address of this machine/);
    await expect(attempt).rejects.toThrow(ProtocolConfigurationError);
  });

  test("a port out of range is a configuration error", async () => {
    const attempt = listen({ host: "127.0.0.1", port: 70_000, fetch: () => new Response() });
    await expect(attempt).rejects.toThrow(/port 70000: the port must be 0\.\.65535/);
  });

  test.skipIf(!hasIPv6)("an IPv6 address is bound, bracketed in the url and answers", async () => {
    const server = await serve({ host: "::1" });
    expect(server.url).toBe(`http://[::1]:${server.port}`);
    expect(await (await fetch(server.url)).text()).toBe("ok");
  });

  test("bound to every interface, the url is one that answers on this machine", async () => {
    const server = await serve({ host: "0.0.0.0" });
    expect(server.host).toBe("0.0.0.0");
    expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
    expect((await fetch(server.url)).status).toBe(200);
  });
});

describe("handling", () => {
  test("the raw listener is tried first, and what it leaves goes to fetch", async () => {
    const server = await serve({
      raw: (req, res) => {
        if (req.url !== "/raw") return false;
        res.end("raw");
        return true;
      },
    });
    expect(await (await fetch(`${server.url}/raw`)).text()).toBe("raw");
    expect(await (await fetch(`${server.url}/other`)).text()).toBe("ok");
  });

  test("a body that another listener has read is handed over as rawBody", async () => {
    const bodies: string[] = [];
    const inner = await serve({
      fetch: async (request) => {
        bodies.push(await request.text());
        return new Response("taken");
      },
      raw: (req, res) => {
        if ("rawBody" in req) return false;
        const chunks: Buffer[] = [];
        req.on("data", (chunk: Buffer) => chunks.push(chunk));
        req.on("end", () => {
          Object.assign(req, { rawBody: Buffer.concat(chunks) });
          // The socket's server: the request goes through both listeners again.
          (req.socket as unknown as { server: NodeJS.EventEmitter }).server.emit("request", req, res);
        });
        return true;
      },
    });
    const answer = await fetch(inner.url, { method: "POST", body: "already read" });
    expect(await answer.text()).toBe("taken");
    expect(bodies).toEqual(["already read"]);
  });

  test("what fetch throws is reported and answered as a problem without its text", async () => {
    const onError = vi.fn();
    const server = await serve({
      fetch: () => Promise.reject(new Error("secret path /etc/x")),
      onError,
    });
    const answer = await fetch(server.url);
    expect(answer.status).toBe(500);
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
    expect(await answer.text()).not.toContain("secret");
    expect(onError).toHaveBeenCalledWith(expect.objectContaining({ message: "secret path /etc/x" }));
  });

  test("an event stream that fails at once breaks off without the text of its error", async () => {
    const report = vi.spyOn(console, "error").mockImplementation(() => undefined);
    const server = await serve({
      fetch: () =>
        new Response(
          new ReadableStream({
            start: (controller) => controller.error(new Error("secret path /etc/x")),
          }),
          { headers: { "content-type": "text/event-stream" } },
        ),
    });
    const client = await rawClient(server);
    client.socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    expect(await client.ended).not.toContain("secret");
    await expect(fetch(server.url).then((answer) => answer.text())).rejects.toThrow();
    report.mockRestore();
  });

  test("an error that is the caller's is answered by its table row and not reported", async () => {
    const onError = vi.fn();
    const server = await serve({
      fetch: () => Promise.reject(new EnvelopeValidationError("no operation")),
      onError,
    });
    expect((await fetch(server.url)).status).toBe(400);
    expect(onError).not.toHaveBeenCalled();
  });

  test("a raw listener that throws ends its own request only", async () => {
    const onError = vi.fn();
    const server = await serve({
      raw: (req) => {
        if (req.url === "/bad") throw new Error("boom");
        return false;
      },
      onError,
    });
    const answer = await fetch(`${server.url}/bad`);
    expect(answer.status).toBe(500);
    expect(await answer.text()).not.toContain("boom");
    expect(onError).toHaveBeenCalledOnce();
    expect((await fetch(server.url)).status).toBe(200);
  });

  test("a request line that is no URL is 400 and the server goes on", async () => {
    const server = await serve();
    const client = await rawClient(server);
    client.socket.write("GET //[ HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n");
    expect(await client.ended).toMatch(/^HTTP\/1\.1 400 /);
    expect((await fetch(server.url)).status).toBe(200);
  });

  test("the program's own Request and Response stay what they were", async () => {
    const server = await serve();
    await fetch(server.url);
    expect(globalThis.Request).toBe(programs[0]);
    expect(globalThis.Response).toBe(programs[1]);
  });

  test("a client that leaves aborts the signal of its request", async () => {
    const aborted = gate();
    const started = gate();
    const server = await serve({
      fetch: async (request) => {
        request.signal.addEventListener("abort", () => aborted.resolve());
        started.resolve();
        await aborted.promise;
        return new Response();
      },
    });
    const client = await rawClient(server);
    client.socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await started.promise;
    client.socket.destroy();
    await aborted.promise;
  });
});

test("100 starts and stops leave no socket, timer or server behind", async () => {
  const resources = (): string[] =>
    process.getActiveResourcesInfo().filter((name) => /TCP|Timeout|Immediate/.test(name));
  const cycle = async (index: number): Promise<void> => {
    const server = await serve();
    await (await fetch(server.url, { headers: { connection: "close" } })).text();
    await (index % 2 === 0 ? server.close() : server.destroy(new Error("cycle")));
  };
  await cycle(0);
  await vi.waitFor(() => expect(resources().filter((name) => name.startsWith("TCP"))).toEqual([]));
  const before = resources().length;
  for (let index = 0; index < 100; index += 1) await cycle(index);
  // The client and the test runner keep a timer or two of their own; a leak would be a hundred.
  await vi.waitFor(() => expect(resources().length).toBeLessThan(before + 10));
});
