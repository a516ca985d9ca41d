import { once } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test, vi } from "vitest";
import { gate, rawClient, serve } from "./sockets.ts";

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
    // The count of active resources in server.test.ts leaves out timers that are unref'd.
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
