/**
 * What a service can do wrong, over real sockets: for each fault what the caller reads, how many attempts are made, and what
 * the breaker counts; for a tool that may not be repeated and for one that may, alone and beside an instance that is well.
 */
import { createServer as createTlsServer, type TlsOptions } from "node:tls";
import type * as Dns from "node:dns";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { ExecutorOptions } from "../../src/execution/executor.ts";
import type { ServiceTls } from "../../src/execution/tls.ts";
import type { Tool } from "../../src/tools/tool.ts";
import {
  callOf,
  deadOrigin,
  executorOf,
  json,
  never,
  onex,
  served,
  service,
  textOf,
} from "../execution/helpers.ts";
import { authority } from "../support/certificates.ts";
import { answer, drip, peer, pour, type Behaviour } from "./faulty-peers.ts";

/** No name of these tests is asked of anybody outside. */
vi.mock("node:dns", async (importOriginal) => {
  const dns = await importOriginal<typeof Dns>();
  type Callback = (error: Error | null, addresses?: unknown) => void;
  const lookup = (hostname: string, options: Dns.LookupOptions, callback: Callback): void => {
    const code = { "unknown.invalid": "ENOTFOUND", "silent.invalid": "EAI_AGAIN" }[hostname];
    if (code === undefined) dns.lookup(hostname, options, callback);
    else
      process.nextTick(() => callback(Object.assign(new Error(`getaddrinfo ${code} ${hostname}`), { code })));
  };
  return { ...dns, lookup };
});

interface Faulty {
  readonly origin: string;
  readonly tls?: ServiceTls;
  /** Requests that reached it whole. */
  readonly requests?: () => number;
  /** Bytes that it sent. */
  readonly sent?: () => number;
}

interface Fault {
  readonly what: string;
  readonly make: () => Promise<Faulty>;
  readonly text: string;
  /** Of the failure; undefined: the tool's own error. */
  readonly code: string | undefined;
  /** Of the log. Default: any, or none. */
  readonly reason?: string;
  /** Of a tool that may not be repeated, and of one that is read_only. */
  readonly attempts: readonly [plain: number, readOnly: number];
  /** Failures that the breaker counts for each attempt. */
  readonly counts: 0 | 1;
  /** Which tool an instance that is well saves from it. */
  readonly saved: "both" | "read_only" | "neither";
  readonly timeoutSeconds?: number;
}

const [network, timeout, unavailable, failed] = [
  "ONEX_CORE_090_NETWORK_ERROR",
  "ONEX_CORE_092_TIMEOUT_ERROR",
  "ONEX_CORE_205_SERVICE_UNAVAILABLE",
  "ONEX_CORE_081_OPERATION_FAILED",
];
const the = 'The service behind "sample"';
const brokeOff = `${the} broke off before its answer was complete.`;
const notHttp = `${the} gave an answer that is not valid HTTP.`;
const tooLate = 'The tool "sample" took longer than 0.4 s.';

/** Nothing was sent: anybody may try again. */
const unsent = { code: network, attempts: [4, 4], counts: 1, saved: "both" } as const;
/** Sent, and lost: only who says that it does no harm tries again. */
const lost = { code: network, attempts: [1, 4], counts: 1, saved: "read_only" } as const;
/** It says that the request itself gets nothing else. */
const final = { code: failed, attempts: [1, 1], counts: 0, saved: "neither" } as const;
/** The deadline is that of the whole call. */
const late = {
  text: tooLate,
  code: timeout,
  attempts: [1, 1],
  counts: 1,
  saved: "neither",
  timeoutSeconds: 0.4,
} as const;
/** No certificate changes within a call. */
const insecure = { code: network, attempts: [1, 1], counts: 1, saved: "both" } as const;

const raw = (behaviour: Behaviour) => async (): Promise<Faulty> => {
  const { port, requests, sent } = await peer(behaviour);
  return { origin: `http://127.0.0.1:${port}`, requests, sent };
};
/** Answers every request with this text, and keeps the connection. */
const saying = (text: string) => raw({ onRequest: (socket) => socket.write(text, "latin1") });
/** The same, and then closes it. */
const endingWith = (text: string) => raw({ onRequest: (socket) => socket.end(text, "latin1") });

/** A TLS server with a certificate of an authority of the test's own. */
async function tls(
  wish: { readonly names?: string; readonly from?: number; readonly until?: number } = {},
  options: TlsOptions = {},
  trusted = true,
): Promise<Faulty> {
  const own = authority();
  const { cert, key } = own.issue(wish);
  const server = createTlsServer({ cert, key, ca: own.ca, ...options }, (socket) => socket.resume());
  server.on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => void server.close(() => resolve())));
  const origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return trusted ? { origin, tls: { ca: own.caFile } } : { origin };
}

const faults: readonly Fault[] = [
  {
    what: "a refused connection",
    make: async () => ({ origin: await deadOrigin() }),
    text: `${the} could not be reached.`,
    reason: "ECONNREFUSED",
    ...unsent,
  },
  {
    what: "a reset before the request was sent",
    make: async () => {
      const { port } = await peer({
        onConnection: (socket) => socket.once("data", () => socket.resetAndDestroy()),
      });
      // What comes first is the handshake: the request waits for it.
      return { origin: `https://127.0.0.1:${port}` };
    },
    text: brokeOff,
    reason: "ECONNRESET",
    ...unsent,
  },
  {
    what: "a reset after the request was sent",
    make: raw({ onRequest: (socket) => socket.resetAndDestroy() }),
    text: brokeOff,
    reason: "ECONNRESET",
    ...lost,
  },
  {
    what: "a connection that ends after the request, without an answer",
    make: raw({ onRequest: (socket) => socket.end() }),
    text: brokeOff,
    ...lost,
  },
  {
    what: "half the head of an answer",
    make: endingWith("HTTP/1.1 200 OK\r\ncontent-ty"),
    text: brokeOff,
    ...lost,
  },
  {
    what: "half the body of an answer",
    make: endingWith(
      answer("200 OK", { "content-type": "application/json", "content-length": "100" }, '{"a":'),
    ),
    text: brokeOff,
    ...lost,
  },
  {
    what: "half an answer in chunks",
    make: endingWith(
      'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"a":\r\n',
    ),
    text: brokeOff,
    ...lost,
  },
  {
    what: "half the body, then a reset",
    make: raw({
      onRequest: (socket) =>
        socket.write(answer("200 OK", { "content-length": "100" }, "half"), () => socket.resetAndDestroy()),
    }),
    text: brokeOff,
    ...lost,
  },
  { what: "a hang before the answer", make: raw({}), ...late },
  {
    what: "a hang in the middle of the answer",
    make: saying(answer("200 OK", { "content-type": "text/plain", "content-length": "100" }, "half")),
    ...late,
  },
  {
    what: "a hang before the handshake",
    make: async () => {
      const { port } = await peer({});
      return { origin: `https://127.0.0.1:${port}` };
    },
    ...late,
  },
  {
    what: "a slow drip of the head",
    make: raw({
      onRequest: (socket) => {
        socket.write("HTTP/1.1 200 OK\r\nx-slow: ");
        drip(socket, 20);
      },
    }),
    ...late,
  },
  {
    what: "a slow drip of the body",
    make: raw({
      onRequest: (socket) => {
        socket.write(answer("200 OK", { "content-type": "text/plain", "content-length": "100000" }));
        drip(socket, 20);
      },
    }),
    ...late,
  },
  {
    what: "429 with a Retry-After within the deadline",
    make: saying(answer("429 Too Many Requests", { "retry-after": "0" })),
    text: "The service answered 429 Too Many Requests.",
    code: unavailable,
    attempts: [1, 4],
    counts: 0,
    saved: "read_only",
  },
  {
    what: "429 with a Retry-After beyond the deadline",
    make: saying(answer("429 Too Many Requests", { "retry-after": "60" })),
    text: "The service answered 429 Too Many Requests.",
    code: unavailable,
    attempts: [1, 1],
    counts: 0,
    // It is about the caller: another instance would say the same.
    saved: "neither",
  },
  {
    what: "503 with a Retry-After within the deadline",
    make: saying(answer("503 Service Unavailable", { "retry-after": "0" })),
    text: `${the} failed (503 Service Unavailable).`,
    ...lost,
  },
  {
    what: "503 with a Retry-After beyond the deadline",
    make: saying(answer("503 Service Unavailable", { "retry-after": "60" })),
    text: `${the} failed (503 Service Unavailable).`,
    ...lost,
    attempts: [1, 1],
  },
  {
    what: "500",
    make: saying(answer("500 Internal Server Error", { "content-type": "text/plain" }, "at /srv/app.js")),
    text: `${the} failed (500 Internal Server Error).`,
    ...lost,
  },
  {
    what: "bad JSON",
    make: saying(answer("200 OK", { "content-type": "application/json" }, '{"a":')),
    text: `The answer of the service behind "sample" cannot be used: it is not valid JSON.`,
    ...final,
  },
  {
    what: "JSON that is no UTF-8",
    make: saying(answer("200 OK", { "content-type": "application/json" }, '"\xff"')),
    text: `The answer of the service behind "sample" cannot be used: it is not UTF-8 text.`,
    ...final,
  },
  {
    what: "a content type that cannot be used",
    make: saying(answer("200 OK", { "content-type": "multipart/mixed; boundary=x" }, "--x--")),
    text: `The answer of the service behind "sample" cannot be used: its type is multipart/mixed: several parts, of which none is the answer.`,
    ...final,
  },
  {
    what: "something that is not HTTP",
    make: endingWith("220 mail.example ESMTP\r\n"),
    text: notHttp,
    ...lost,
  },
  {
    what: "a chunk without a size",
    make: endingWith("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n"),
    text: notHttp,
    ...lost,
  },
  {
    what: "100 MB that are announced",
    make: raw({
      onRequest: (socket) => {
        socket.write(answer("200 OK", { "content-type": "text/plain", "content-length": "100000000" }));
        pour(socket, 100_000_000);
      },
    }),
    text: `The answer of the service behind "sample" has 100000000 bytes, more than the limit of 10485760 bytes (10 MiB).`,
    ...final,
  },
  {
    what: "100 MB that are not announced",
    make: raw({
      onRequest: (socket) => {
        socket.write("HTTP/1.1 200 OK\r\ncontent-type: image/png\r\nconnection: close\r\n\r\n");
        pour(socket, 100_000_000);
      },
    }),
    text: `The answer of the service behind "sample" is larger than the limit of 10485760 bytes (10 MiB).`,
    ...final,
  },
  {
    what: "a certificate of an unknown authority",
    make: () => tls({}, {}, false),
    text: `${the} could not be reached: its certificate is not from an authority that is trusted here.`,
    reason: "SELF_SIGNED_CERT_IN_CHAIN",
    ...insecure,
  },
  {
    what: "an expired certificate",
    make: () => tls({ from: 2020, until: 2021 }),
    text: `${the} could not be reached: its certificate has expired.`,
    reason: "CERT_HAS_EXPIRED",
    ...insecure,
  },
  {
    what: "a certificate for another name",
    make: () => tls({ names: "DNS:other.example" }),
    text: `${the} could not be reached: its certificate is for another name.`,
    reason: "ERR_TLS_CERT_ALTNAME_INVALID",
    ...insecure,
  },
  {
    what: "a demand for a client certificate",
    make: () => tls({}, { requestCert: true, rejectUnauthorized: true, maxVersion: "TLSv1.2" }),
    text: `${the} could not be reached: it did not accept this runtime's client certificate, or the lack of one.`,
    ...insecure,
  },
  {
    what: "plain HTTP where TLS is expected",
    make: async () => {
      const { port } = await peer({
        onConnection: (socket) => socket.once("data", () => socket.end(answer("400 Bad Request", {}))),
      });
      return { origin: `https://127.0.0.1:${port}` };
    },
    text: `${the} could not be reached: it does not speak TLS.`,
    reason: "ERR_SSL_WRONG_VERSION_NUMBER",
    ...insecure,
  },
  {
    what: "a name that does not exist",
    make: async () => ({ origin: "http://unknown.invalid:8080" }),
    text: `${the} could not be reached.`,
    reason: "ENOTFOUND",
    ...unsent,
  },
  {
    what: "a name server that does not answer",
    make: async () => ({ origin: "http://silent.invalid:8080" }),
    text: `${the} could not be reached.`,
    reason: "EAI_AGAIN",
    ...unsent,
  },
];

/** Retries come at once; who comes first of two instances is known. */
const quick = { retry: { firstMs: 1, maxMs: 2, floorMs: 1 }, random: () => 0 } as const;

function serving(tool: Tool, { tls: files }: Faulty, { timeoutSeconds = 10 }: Fault) {
  const options: Partial<ExecutorOptions> = { ...quick, timeoutSeconds, ...(files && { tls: files }) };
  return executorOf([tool], options);
}

const kinds = [
  ["a tool that may not be repeated", 0, {}],
  ["a read_only tool", 1, { annotations: { readOnly: true } }],
] as const;

describe.each(faults)("$what", (fault) => {
  test.each(kinds)("%s", async (_kind, index, annotated) => {
    const faulty = await fault.make();
    const executor = serving(onex(faulty.origin, "/run", annotated), faulty, fault);
    const result = await executor.call(callOf(), never);
    const attempts = result.meta?.["onex-runtime/attempts"] ?? 1;
    expect({ text: textOf(result), code: result.failure?.code, attempts, isError: result.isError }).toEqual({
      text: fault.text,
      code: fault.code,
      attempts: fault.attempts[index],
      isError: true,
    });
    if (fault.reason !== undefined) expect(result.failure?.facts.reason).toBe(fault.reason);
    expect(executor.circuits.circuitState(faulty.origin)).toMatchObject({
      kind: "closed",
      failures: fault.counts * fault.attempts[index],
    });
    if (faulty.requests !== undefined) expect(faulty.requests()).toBe(fault.attempts[index]);
    if (faulty.sent !== undefined) expect(faulty.sent()).toBeLessThan(50_000_000);
  });

  test.each(kinds)("%s, with another instance that is well", async (_kind, index, annotated) => {
    const faulty = await fault.make();
    const well = await service((_request, response) => json(response, { from: "well" }));
    const executor = serving(served([faulty.origin, well.origin], annotated), faulty, fault);
    const result = await executor.call(callOf(), never);
    const isSaved = fault.saved === "both" || (fault.saved === "read_only" && index === 1);
    const attempts = result.meta?.["onex-runtime/attempts"] ?? 1;
    expect({ text: textOf(result), attempts, reached: well.requests.length }).toEqual(
      isSaved
        ? { text: '{"from":"well"}', attempts: 2, reached: 1 }
        : { text: fault.text, attempts: 1, reached: 0 },
    );
  });
});
