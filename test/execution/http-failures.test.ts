import { collectingLog } from "../support/log.ts";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import {
  CancelledError,
  InfraConnectionError,
  InfraTimeoutError,
  InfraUnavailableError,
  RuntimeHostError,
} from "../../src/core/errors.ts";
import {
  answerOf,
  callOf,
  deadOrigin,
  executorOf,
  json,
  never,
  onex,
  service,
  textOf,
  type Reply,
} from "./helpers.ts";

describe("a service that does not answer", () => {
  test("and refuses the connection is a failure whose text has no address", async () => {
    const origin = await deadOrigin();
    const result = await executorOf([onex(origin, "/run", { name: "sample" })]).call(callOf(), never);
    expect(result.failure).toBeInstanceOf(InfraConnectionError);
    expect(result.failure?.facts).toMatchObject({
      transport: "http",
      target: origin,
      reason: "ECONNREFUSED",
    });
    expect(textOf(result)).toBe('The service behind "sample" could not be reached.');
  });

  const brokenOff = 'The service behind "sample" broke off before its answer was complete.';
  const notHttp = 'The service behind "sample" gave an answer that is not valid HTTP.';
  test.each<[string, Reply, string]>([
    ["hangs up before the answer", (_request, _response, raw) => raw.socket.destroy(), brokenOff],
    [
      "hangs up in the middle of the answer",
      (_request, response, raw) => {
        response.writeHead(200, { "content-type": "text/plain", "content-length": "100" });
        response.write("part", () => raw.socket.destroy());
      },
      brokenOff,
    ],
    ["says something else", (_request, _response, raw) => raw.socket.end("nonsense\r\n\r\n"), notHttp],
    [
      "has too many headers",
      (_request, response) => response.writeHead(200, { "x-long": "x".repeat(20_000) }).end(),
      notHttp,
    ],
  ])("and %s is a connection failure that says so", async (_what, reply, message) => {
    const result = await answerOf(reply);
    expect(result.failure).toBeInstanceOf(InfraConnectionError);
    expect(result.failure?.countsForBreaker).toBe(true);
    expect(textOf(result)).toBe(message);
  });

  test("in time is a timeout, and its request is ended", async () => {
    const closed = Promise.withResolvers<undefined>();
    const result = await answerOf(
      (_request, response) => response.on("close", () => closed.resolve(undefined)),
      { timeoutSeconds: 0.5 },
    );
    expect(result.failure).toBeInstanceOf(InfraTimeoutError);
    await closed.promise;
  });

  test("because its name does not resolve is a connection failure without the name", async () => {
    const result = await executorOf([onex("http://no-such-host.invalid")]).call(callOf(), never);
    expect(result.failure).toBeInstanceOf(InfraConnectionError);
    expect(textOf(result)).not.toContain("invalid");
  });
});

describe("cancellation", () => {
  test("reaches the service: it sees the connection close", async () => {
    const arrived = Promise.withResolvers<undefined>();
    const closed = Promise.withResolvers<undefined>();
    const { origin } = await service((_request, response) => {
      response.on("close", () => closed.resolve(undefined));
      arrived.resolve(undefined);
    });
    const client = new AbortController();
    const executor = executorOf([onex(origin)]);
    const answer = executor.call(callOf(), client.signal);
    await arrived.promise;
    client.abort();
    expect((await answer).failure).toBeInstanceOf(CancelledError);
    await closed.promise;
    expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "closed", failures: 0 });
  });

  test("of a call that still waits for its turn sends nothing", async () => {
    const release = Promise.withResolvers<undefined>();
    const { origin, requests } = await service((_request, response) => {
      void release.promise.then(() => json(response, 1));
    });
    const limits = { toolConcurrency: 64, instanceConcurrency: 65 };
    const executor = executorOf([onex(origin)], { limits });
    const running = Array.from({ length: 64 }, () => executor.call(callOf(), never));
    await vi.waitFor(() => expect(requests).toHaveLength(64));
    const client = new AbortController();
    const waiting = executor.call(callOf(), client.signal);
    const after = executor.call(callOf(), never);
    client.abort();
    expect((await waiting).failure).toBeInstanceOf(CancelledError);
    release.resolve(undefined);
    await Promise.all([...running, after]);
    expect(requests).toHaveLength(65);
  });
});

describe("the circuit breaker", () => {
  test("after five refused connections the sixth call is answered without a connection attempt", async () => {
    let refusing = true;
    let connections = 0;
    const server = createServer((socket) => {
      connections++;
      if (refusing) socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const executor = executorOf([onex(origin)]);
    for (let call = 0; call < 5; call++)
      expect((await executor.call(callOf(), never)).failure).toBeInstanceOf(InfraConnectionError);
    expect(connections).toBe(5);
    refusing = false;
    const result = await executor.call(callOf(), never);
    expect(connections).toBe(5);
    expect(result.failure).toBeInstanceOf(InfraUnavailableError);
    expect(result.failure).toMatchObject({ retryable: true, facts: { retry_after_seconds: 60 } });
    expect(textOf(result)).toBe(
      'The service behind "sample" is not available at the moment; try again in 60 s.',
    );
  });

  test("is per origin: another service's tool goes on, and the tool reads as unavailable", async () => {
    const dead = onex(await deadOrigin(), "/run", { name: "dead" });
    const { origin } = await service((_request, response) => json(response, 1));
    const alive = onex(origin, "/run", { name: "alive" });
    const executor = executorOf([dead, alive]);
    expect(executor.available(dead)).toBe(true);
    for (let call = 0; call < 6; call++) await executor.call(callOf({}, { name: "dead" }), never);
    expect(executor.available(dead)).toBe(false);
    expect(executor.available(alive)).toBe(true);
    expect((await executor.call(callOf({}, { name: "alive" }), never)).isError).toBe(false);
  });

  test("counts 5xx and timeouts, closes again after its time, and can be reset by hand", async () => {
    let now = 0;
    let status = 500;
    const { origin, requests } = await service((_request, response) => {
      if (status > 0) json(response, {}, status);
    });
    const executor = executorOf([onex(origin, "/run", { timeoutSeconds: 1 })], {
      clock: { now: () => now },
    });
    const call = async () => (await executor.call(callOf(), never)).failure?.name;
    const kind = () => executor.circuits.circuitState(origin)?.kind;
    for (let n = 0; n < 4; n++) expect(await call()).toBe("InfraConnectionError");
    status = 0;
    expect(await call()).toBe("InfraTimeoutError");
    expect(kind()).toBe("open");
    expect(await call()).toBe("InfraUnavailableError");
    expect(requests).toHaveLength(5);
    now = 60_000;
    status = 200;
    expect([await call(), await call()]).toEqual([undefined, undefined]);
    expect(kind()).toBe("closed");
    status = 500;
    for (let n = 0; n < 5; n++) await call();
    expect(kind()).toBe("open");
    expect(executor.circuits.resetCircuit(origin)).toBe(true);
    status = 200;
    expect(await call()).toBeUndefined();
  });

  test("never counts 4xx, the tool's own errors, bad arguments or answers that are too large", async () => {
    const replies: Reply[] = [
      (_request, response) => json(response, {}, 404),
      (_request, response) => json(response, {}, 429),
      (_request, response) => json(response, { success: false }),
      (_request, response) => response.writeHead(302).end(),
      (_request, response) => response.writeHead(200, { "content-length": "20000000" }).end(),
    ];
    let n = 0;
    const { origin } = await service((request, response, raw) =>
      replies[n++ % replies.length]!(request, response, raw),
    );
    const tool = onex(origin, "/run", { inputSchema: { type: "object", maxProperties: 0 } });
    const executor = executorOf([tool], { breaker: { failureThreshold: 1 } });
    for (let call = 0; call < 10; call++) {
      expect((await executor.call(callOf(), never)).isError).toBe(true);
      expect((await executor.call(callOf({ a: 1 }), never)).isError).toBe(true);
    }
    expect(executor.circuits.circuitState(origin)?.kind).toBe("closed");
  });
});

describe("addresses that may not be called", () => {
  const refusal = async (origin: string, allowedNetworks?: readonly string[]) => {
    const executor = executorOf([onex(origin)], allowedNetworks ? { allowedNetworks } : {});
    const result = await executor.call(callOf(), never);
    expect(executor.circuits.circuitState(new URL(origin).origin)?.kind ?? "closed").toBe("closed");
    return result;
  };

  test.each([
    "http://169.254.169.254",
    "http://169.254.1.1:8080",
    "http://2852039166", // 169.254.169.254 as one number
    "http://0xa9.0xfe.0xa9.0xfe",
    "http://[fe80::1]",
    "http://[fd00:ec2::254]",
    "http://[::ffff:169.254.169.254]",
    "http://[64:ff9b::169.254.169.254]",
    "http://[2002:a9fe:a9fe::1]",
    "http://[::169.254.169.254]",
    "http://168.63.129.16",
    "http://[::ffff:168.63.129.16]",
  ])("%s is always refused", async (origin) => {
    const result = await refusal(origin, ["0.0.0.0/0", "::/0"]);
    expect(result.failure).toBeInstanceOf(RuntimeHostError);
    expect(result.failure).toMatchObject({ retryable: false, countsForBreaker: false });
    expect(textOf(result)).toBe('The service behind "sample" has an address that may not be called.');
  });

  test("what is outside of allowed_networks is refused, what is inside is called", async () => {
    const { origin, connections } = await service((_request, response) => json(response, 1));
    expect((await refusal(origin, ["10.0.0.0/8", "::1"])).failure).toBeInstanceOf(RuntimeHostError);
    expect(connections()).toBe(0);
    expect((await refusal(origin, ["127.0.0.0/8"])).isError).toBe(false);
  });

  test("a name is judged by what it resolves to at the moment of connecting", async () => {
    const { port, connections } = await service((_request, response) => json(response, 1));
    const byName = `http://localhost:${port}`;
    const refused = await refusal(byName, ["10.0.0.0/8"]);
    expect(textOf(refused)).toBe('The service behind "sample" has an address that may not be called.');
    expect(connections()).toBe(0);
    expect((await refusal(byName, ["127.0.0.0/8"])).isError).toBe(false);
  });

  test.each(["10.0.0.0/33", "10.0.0/8", "nonsense", "::/129", "10.0.0.0/8/8", "10.0.0.0/"])(
    "the network %j is a configuration error",
    (network) => {
      expect(() => executorOf([], { allowedNetworks: [network] })).toThrow(
        `allowed_networks: expected a network such as "10.0.0.0/8" or an address, got '${network}'`,
      );
    },
  );
});

describe("connections", () => {
  test("are kept and used again", async () => {
    const { origin, connections } = await service((_request, response) => json(response, 1));
    const executor = executorOf([onex(origin)]);
    for (let call = 0; call < 20; call++) await executor.call(callOf(), never);
    // undici gives a socket one turn of the event loop to rest; a call at that moment gets a second one.
    expect(connections()).toBeLessThanOrEqual(2);
  });
});

test("no log line of a failing service misses its target, and no answer holds it", async () => {
  const { log, lines } = collectingLog();
  const { origin, port } = await service((_request, response) => json(response, {}, 500));
  const executor = executorOf([onex(origin)], { log });
  for (let call = 0; call < 7; call++) {
    const text = textOf(await executor.call(callOf(), never));
    expect(text).not.toContain(String(port));
    expect(text).not.toContain("127.0.0.1");
  }
  expect(lines).toHaveLength(7);
  for (const { fields } of lines) expect(fields.target).toBe(origin);
});
