import { once } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
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

describe("slow and half-open clients", () => {
  test("a client that connects and sends nothing is cut off", async () => {
    const server = await serve({ headersTimeoutMs: 200 });
    const client = await rawClient(server);
    await client.ended;
    expect(server.connections).toBe(0);
  });

  test("a client that sends its headers one byte at a time is cut off with 408", async () => {
    const fetched = vi.fn(() => new Response());
    const server = await serve({ headersTimeoutMs: 300, fetch: fetched });
    const client = await rawClient(server);
    const bytes = "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".padEnd(5_000, "y")[Symbol.iterator]();
    const drip = setInterval(() => client.socket.write(bytes.next().value ?? "z"), 20);
    try {
      expect(await client.ended).toMatch(/^(HTTP\/1\.1 408 |$)/);
    } finally {
      clearInterval(drip);
    }
    expect(fetched).not.toHaveBeenCalled();
  });

  test("a client that stalls in its body is cut off and its handler learns of it", async () => {
    const failed = gate();
    const server = await serve({
      headersTimeoutMs: 200,
      requestTimeoutMs: 300,
      fetch: async (request) => {
        await request.text().catch(() => failed.resolve());
        return new Response();
      },
    });
    const client = await rawClient(server);
    client.socket.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nonly this");
    await client.ended;
    await failed.promise;
  });

  test("a client that sends its body one byte at a time is cut off", async () => {
    const server = await serve({
      headersTimeoutMs: 200,
      requestTimeoutMs: 400,
      fetch: async (request) => new Response(await request.text()),
    });
    const client = await rawClient(server);
    client.socket.write("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    const drip = setInterval(() => client.socket.write("1\r\nx\r\n"), 20);
    try {
      expect(await client.ended).not.toMatch(/ 200 /);
    } finally {
      clearInterval(drip);
    }
  });

  test("an idle keep-alive connection is closed after its limit", async () => {
    const server = await serve({ keepAliveTimeoutMs: 100 });
    const client = await rawClient(server);
    client.socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    expect(await client.ended).toMatch(/^HTTP\/1\.1 200 /);
  });

  test("the limits do not cut an answer that takes longer than they are", async () => {
    const release = gate();
    const slowestLimit = 300;
    const server = await serve({
      headersTimeoutMs: 100,
      requestTimeoutMs: slowestLimit,
      keepAliveTimeoutMs: 100,
      fetch: async (request) => {
        await request.text();
        await release.promise;
        return new Response("late");
      },
    });
    const slow = fetch(server.url, { method: "POST", body: "{}" });
    // A second client that is cut off for its slowness shows that the limits have run out by now.
    const silent = await rawClient(server);
    silent.socket.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n");
    await silent.ended;
    release.resolve();
    expect(await (await slow).text()).toBe("late");
  });

  test("a stream stays open past the limits until its owner ends it", async () => {
    let stream: ReadableStreamDefaultController<Uint8Array> | undefined;
    const server = await serve({
      headersTimeoutMs: 100,
      requestTimeoutMs: 200,
      keepAliveTimeoutMs: 100,
      fetch: () =>
        new Response(new ReadableStream<Uint8Array>({ start: (controller) => void (stream = controller) }), {
          headers: { "content-type": "text/event-stream" },
        }),
    });
    const answer = await fetch(server.url);
    const silent = await rawClient(server);
    await silent.ended;
    stream?.enqueue(Buffer.from("data: 1\n\n"));
    stream?.close();
    expect(await answer.text()).toBe("data: 1\n\n");
  });

  test("connections beyond the maximum are dropped, and room is made again", async () => {
    const server = await serve({ maxConnections: 1 });
    const first = await rawClient(server);
    const second = await rawClient(server);
    await second.ended;
    first.socket.destroy();
    await vi.waitFor(() => expect(server.connections).toBe(0));
    expect((await fetch(server.url)).status).toBe(200);
  });

  test("200 clients that connect and vanish leave nothing behind", async () => {
    const server = await serve();
    const clients = await Promise.all(Array.from({ length: 200 }, () => rawClient(server)));
    await vi.waitFor(() => expect(server.connections).toBe(200));
    for (const [index, { socket }] of clients.entries()) {
      if (index % 2 === 0) socket.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Le");
      socket.resetAndDestroy();
    }
    await vi.waitFor(() => expect(server.connections).toBe(0));
    expect((await fetch(server.url)).status).toBe(200);
  });
});

describe("clients that do not read", () => {
  const get = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

  test("a client that does not read its answer is cut off, and what was held for it is freed", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const held: WeakRef<Buffer>[] = [];
    const onError = vi.fn();
    const server = await serve({
      writeTimeoutMs: 300,
      onError,
      raw: (_req, res) => {
        const answer = Buffer.alloc(9_000_000, "a");
        held.push(new WeakRef(answer));
        res.end(answer);
        return true;
      },
    });
    const clients = await Promise.all(Array.from({ length: 10 }, () => rawClient(server)));
    for (const { socket } of clients) socket.pause().write(get);
    await vi.waitFor(() => expect(held).toHaveLength(10));
    await vi.waitFor(() => expect(server.connections).toBe(0), 10_000);
    await vi.waitFor(() => {
      collect();
      expect(held.filter((answer) => answer.deref() !== undefined)).toEqual([]);
    }, 10_000);
    expect(onError).not.toHaveBeenCalled();
  });

  test("the stream that a client no longer reads is cancelled", async () => {
    const cancelled = gate();
    const server = await serve({
      writeTimeoutMs: 300,
      fetch: () =>
        new Response(
          new ReadableStream<Uint8Array>({
            pull: (controller) => controller.enqueue(Buffer.alloc(65_536, "a")),
            cancel: () => cancelled.resolve(),
          }),
        ),
    });
    const client = await rawClient(server);
    client.socket.pause().write(get);
    await cancelled.promise;
    await vi.waitFor(() => expect(server.connections).toBe(0));
  });

  test("one that does not read holds up close for no longer than the limit", async () => {
    const answered = gate();
    const server = await serve({
      writeTimeoutMs: 300,
      raw: (_req, res) => {
        // Not ended: node itself ends what has only its last write before it.
        res.write(Buffer.alloc(9_000_000, "a"));
        answered.resolve();
        return true;
      },
    });
    const client = await rawClient(server);
    client.socket.pause().write(get);
    await answered.promise;
    await server.close();
    expect(server.state).toEqual({ kind: "closed", reason: "close" });
  });

  test("the watch for them ends with the server", async () => {
    // The count of active resources below leaves out timers that are unref'd.
    const started = vi.spyOn(globalThis, "setInterval");
    const stopped = vi.spyOn(globalThis, "clearInterval");
    const server = await serve({ writeTimeoutMs: 98_765 });
    const watch = started.mock.calls.findIndex(([, ms]) => ms === 32_922);
    const timer = started.mock.results[watch]?.value as NodeJS.Timeout;
    expect(timer.hasRef()).toBe(false);
    expect(stopped).not.toHaveBeenCalledWith(timer);
    await server.close();
    expect(stopped).toHaveBeenCalledWith(timer);
    vi.restoreAllMocks();
  });

  test("a client that reads slowly gets its whole answer", async () => {
    const size = 32_000_000;
    // One write, which takes its client more than twice the limit.
    const server = await serve({
      writeTimeoutMs: 600,
      raw: (_req, res) => {
        res.end(Buffer.alloc(size, "a"));
        return true;
      },
    });
    const { socket, ended } = await rawClient(server);
    socket.on("data", () => {
      socket.pause();
      setTimeout(() => socket.resume(), 3);
    });
    socket.write(get);
    const text = await ended;
    expect(text.length - text.indexOf("\r\n\r\n") - 4).toBe(size);
  }, 30_000);

  test("a graceful close lets an answer that is on its way arrive whole", async () => {
    const size = 32_000_000;
    const server = await serve({
      raw: (_req, res) => {
        res.end(Buffer.alloc(size, "a"));
        return true;
      },
    });
    const { socket, ended } = await rawClient(server);
    socket.write(get);
    await once(socket, "data");
    const closed = server.close();
    const text = await ended;
    expect(text.length - text.indexOf("\r\n\r\n") - 4).toBe(size);
    await closed;
  }, 30_000);

  test("a silent stream is not cut, nor an answer still being made", async () => {
    const made = gate();
    let stream: ReadableStreamDefaultController<Uint8Array> | undefined;
    const server = await serve({
      writeTimeoutMs: 100,
      fetch: async (request) => {
        if (request.url.endsWith("/stuck")) return new Response(Buffer.alloc(9_000_000, "a"));
        if (request.url.endsWith("/stream"))
          return new Response(
            new ReadableStream<Uint8Array>({ start: (controller) => void (stream = controller) }),
            { headers: { "content-type": "text/event-stream" } },
          );
        await made.promise;
        return new Response("late");
      },
    });
    const late = fetch(server.url);
    const silent = await fetch(`${server.url}/stream`);
    // Two clients cut off one after the other show that the limit has run out more than once by now.
    for (let round = 0; round < 2; round += 1) {
      const stuck = await rawClient(server);
      const { connections } = server;
      stuck.socket.pause().write(get.replace("/", "/stuck"));
      await vi.waitFor(() => expect(server.connections).toBeLessThan(connections), 10_000);
    }
    stream?.enqueue(Buffer.from("data: 1\n\n"));
    stream?.close();
    expect(await silent.text()).toBe("data: 1\n\n");
    made.resolve();
    expect(await (await late).text()).toBe("late");
  });
});

describe("close", () => {
  test("lets a request in progress finish and tells its client to close", async () => {
    const started = gate();
    const release = gate();
    const server = await serve({
      fetch: async () => {
        started.resolve();
        await release.promise;
        return new Response("finished");
      },
    });
    const client = await rawClient(server);
    client.socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await started.promise;
    const closing = server.close();
    expect(server.state).toEqual({ kind: "closing", reason: "close" });
    release.resolve();
    await closing;
    const text = await client.ended;
    expect(text).toContain("finished");
    expect(text).toMatch(/connection: close/i);
    expect(server.state).toEqual({ kind: "closed", reason: "close" });
    expect(await server.closed).toEqual({ reason: "close" });
  });

  test("refuses new connections at once", async () => {
    const started = gate();
    const release = gate();
    const server = await serve({
      fetch: async () => {
        started.resolve();
        await release.promise;
        return new Response();
      },
    });
    const held = fetch(server.url);
    await started.promise;
    const closing = server.close();
    await expect(rawClient(server)).rejects.toThrow(/ECONNREFUSED/);
    release.resolve();
    expect((await held).status).toBe(200);
    await closing;
  });

  test("does not wait for idle connections, nor for those that never sent a request", async () => {
    const server = await serve({ keepAliveTimeoutMs: 60_000, headersTimeoutMs: 60_000 });
    const idle = await rawClient(server);
    idle.socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await vi.waitFor(() => expect(idle.text()).toContain("ok"));
    const silent = await rawClient(server);
    const partial = await rawClient(server);
    partial.socket.write("GET / HT");
    await vi.waitFor(() => expect(server.connections).toBe(3));
    await server.close();
    await Promise.all([idle.ended, silent.ended, partial.ended]);
  });

  test("a request behind one whose answer has begun is still served, and its client told to close", async () => {
    const started = gate();
    const release = gate();
    const second = gate();
    const server = await serve({
      keepAliveTimeoutMs: 60_000,
      raw: (req, res) => {
        if (req.url === "/two") {
          second.resolve();
          return false;
        }
        res.write("one");
        started.resolve();
        void release.promise.then(() => res.end());
        return true;
      },
      fetch: () => new Response("two"),
    });
    const client = await rawClient(server);
    client.socket.write("GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await started.promise;
    const closing = server.close();
    client.socket.write("GET /two HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await second.promise;
    release.resolve();
    await closing;
    expect(await client.ended).toMatch(/one[\s\S]*HTTP\/1\.1 200 [\s\S]*connection: close[\s\S]*two/i);
  });

  test("a body that trickles in does not hold it up beyond the request's limit", async () => {
    const started = gate();
    const server = await serve({
      requestTimeoutMs: 300,
      headersTimeoutMs: 300,
      fetch: async (request) => {
        started.resolve();
        await request.text().catch(() => undefined);
        return new Response();
      },
    });
    const client = await rawClient(server);
    client.socket.write("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    await started.promise;
    const closing = server.close();
    const drip = setInterval(() => client.socket.write("1\r\nx\r\n"), 20);
    try {
      await closing;
    } finally {
      clearInterval(drip);
    }
  });

  test("waits for an open stream, whose owner ends it", async () => {
    let stream: ReadableStreamDefaultController<Uint8Array> | undefined;
    const server = await serve({
      keepAliveTimeoutMs: 60_000,
      fetch: () =>
        new Response(
          new ReadableStream<Uint8Array>({
            start: (controller) => {
              stream = controller;
              controller.enqueue(Buffer.from("data: 1\n\n"));
            },
          }),
        ),
    });
    const answer = await fetch(server.url);
    const settled = vi.fn();
    const closing = server.close().then(settled);
    stream?.enqueue(Buffer.from("data: 2\n\n"));
    const reader = answer.body!.getReader();
    await reader.read();
    expect(settled).not.toHaveBeenCalled();
    stream?.close();
    await closing;
    reader.releaseLock();
  });

  test("is idempotent, and disposal closes", async () => {
    const server = await serve();
    await Promise.all([server.close(), server.close(), server[Symbol.asyncDispose]()]);
    await server.close();
    await server.destroy(new Error("too late to matter"));
    expect(server.state).toEqual({ kind: "closed", reason: "close" });
  });

  test("the port is free again afterwards", async () => {
    const first = await serve();
    await fetch(first.url);
    await first.close();
    const second = await serve({ port: first.port });
    expect((await fetch(second.url)).status).toBe(200);
  });
});

describe("destroy", () => {
  test("ends requests and streams at once and gives its reason", async () => {
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
    const reason = new Error("out of patience");
    await server.destroy(reason);
    await client.ended;
    await aborted.promise;
    expect(await server.closed).toEqual({ reason: "destroy", error: reason });
    expect(server.connections).toBe(0);
  });

  test("cuts a close short, which then counts as forced", async () => {
    const started = gate();
    const server = await serve({
      fetch: () => {
        started.resolve();
        return new Promise<Response>(() => undefined);
      },
    });
    const client = await rawClient(server);
    client.socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await started.promise;
    const closing = server.close();
    await server.destroy(new Error("the limit is over"));
    await closing;
    expect(server.state).toMatchObject({ kind: "closed", reason: "destroy" });
  });
});

describe("ends that nobody asked for", () => {
  test("the server's own error is a crash: it is reported and everything is closed", async () => {
    const onError = vi.fn();
    const error = new Error("accept EMFILE");
    const server = await serve({
      onError,
      raw: (req) => {
        (req.socket as unknown as { server: NodeJS.EventEmitter }).server.emit("error", error);
        return true;
      },
    });
    const client = await rawClient(server);
    client.socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    expect(await server.closed).toEqual({ reason: "crashed", error });
    expect(server.state).toEqual({ kind: "closed", reason: "crashed", error });
    expect(onError).toHaveBeenCalledWith(error);
    await client.ended;
  });

  test("closed by something else is an exit", async () => {
    const release = gate();
    const server = await serve({
      raw: (req, res) => {
        (req.socket as unknown as { server: { close(): void } }).server.close();
        void release.promise.then(() => res.end("last"));
        return true;
      },
    });
    const last = fetch(server.url);
    await vi.waitFor(() => expect(server.state).toEqual({ kind: "closing", reason: "exited" }));
    release.resolve();
    expect(await (await last).text()).toBe("last");
    await server.close();
    expect(await server.closed).toEqual({ reason: "exited" });
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
