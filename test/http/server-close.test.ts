import { describe, expect, test, vi } from "vitest";
import { gate, rawClient, serve } from "./sockets.ts";

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
