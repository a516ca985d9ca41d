import { spawn } from "node:child_process";
import { createPrivateKey } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer, type ServerOptions } from "node:https";
import { createServer as createTcpServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { getCACertificates, setDefaultCACertificates, TLSSocket } from "node:tls";
import { describe, expect, onTestFinished, test } from "vitest";
import { InfraConnectionError, ProtocolConfigurationError } from "../../src/core/errors.ts";
import { secureContext, tlsProblem, type ServiceTls } from "../../src/execution/tls.ts";
import { authority, type Authority, type Issued } from "../support/certificates.ts";
import { collectingLog } from "../support/log.ts";
import { callOf, executorOf, never, onex, rest, service, textOf, toolOf } from "./helpers.ts";

interface Secure {
  readonly origin: string;
  readonly port: number;
  /** The paths that were asked for. */
  readonly paths: string[];
  /** The names in the clients' certificates. */
  readonly clients: unknown[];
}

/** A real HTTPS service, gone when the test is over. */
async function secure(own: Issued, options: ServerOptions = {}, host = "127.0.0.1"): Promise<Secure> {
  const [paths, clients]: [string[], unknown[]] = [[], []];
  const server = createServer({ cert: own.cert, key: own.key, ...options }, (request, response) => {
    paths.push(request.url ?? "");
    const { socket } = request;
    clients.push(socket instanceof TLSSocket && socket.getPeerX509Certificate()?.subject);
    response.setHeader("content-type", "application/json");
    request.resume().on("end", () => response.end('{"ok":1}'));
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  onTestFinished(async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  });
  const { port } = server.address() as AddressInfo;
  const shown = host.includes(":") ? `[${host}]` : host;
  return { origin: `https://${shown}:${port}`, port, paths, clients };
}

/**
 * The origin of openssl's own server, which refuses strangers by an alert; Node's hangs up without a word. It is gone
 * when the test is over.
 */
async function demanding(by: Authority, own: Issued): Promise<string> {
  const files = ["-cert", own.certFile, "-key", own.keyFile, "-CAfile", by.caFile];
  const args = [
    "s_server",
    "-accept",
    "127.0.0.1:0",
    "-www",
    "-Verify",
    "1",
    "-verify_return_error",
    ...files,
  ];
  const server = spawn("openssl", args, { stdio: ["ignore", "pipe", "ignore"] });
  onTestFinished(async () => {
    const ended = once(server, "exit");
    server.kill("SIGKILL");
    await ended;
  });
  let text = "";
  for await (const chunk of server.stdout) {
    text += String(chunk);
    const port = /ACCEPT .*:(\d+)/.exec(text)?.[1];
    if (port !== undefined) return `https://127.0.0.1:${port}`;
  }
  throw new Error(`openssl s_server ended: ${text}`);
}

/** One call of a tool at this endpoint, and what an operator learns of it. */
async function callAt(origin: string, tls?: ServiceTls) {
  const { log, lines } = collectingLog();
  const executor = executorOf([onex(origin)], { log, ...(tls && { tls }) });
  const result = await executor.call(callOf(), never);
  return { result, executor, lines };
}

describe("a service over https", () => {
  test("is trusted by its own authority, and called with its path", async () => {
    const own = authority();
    const { origin, paths } = await secure(own.issue());
    const { result } = await callAt(`${origin}/base`, { ca: own.caFile });
    expect(result).toMatchObject({ structuredContent: { ok: 1 }, isError: false });
    expect(paths).toEqual(["/base/run"]);
  });

  test("by name is called by that name", async () => {
    const own = authority();
    const { port } = await secure(own.issue({ names: "DNS:localhost" }));
    const { result } = await callAt(`https://localhost:${port}`, { ca: own.caFile });
    expect(result.isError).toBe(false);
  });

  test("of an authority that everyone trusts is trusted beside one of its own", async () => {
    const before = getCACertificates("default");
    onTestFinished(() => setDefaultCACertificates(before));
    const [known, own] = [authority(), authority()];
    setDefaultCACertificates([known.ca]);
    const services = [await secure(known.issue()), await secure(own.issue())];
    const tools = services.map(({ origin }, index) => onex(origin, "/run", { name: `tool${index}` }));
    const executor = executorOf(tools, { tls: { ca: own.caFile } });
    for (const { name } of tools)
      expect((await executor.call(callOf({}, { name }), never)).isError).toBe(false);
  });

  test.each(["TLSv1.2", "TLSv1.3"] as const)(
    "shows its certificate where it is asked for, over %s",
    async (version) => {
      const own = authority();
      const client = own.issue();
      const { origin, clients } = await secure(own.issue(), {
        ca: own.ca,
        requestCert: true,
        rejectUnauthorized: true,
        maxVersion: version,
      });
      const tls = { ca: own.caFile, cert: client.certFile, key: client.keyFile };
      expect((await callAt(origin, tls)).result.isError).toBe(false);
      expect(clients).toEqual(["CN=leaf1"]);
    },
  );

  test("many calls share few connections", async () => {
    const own = authority();
    const { origin, paths } = await secure(own.issue());
    const executor = executorOf([onex(origin)], { tls: { ca: own.caFile } });
    for (let call = 0; call < 20; call++) expect((await executor.call(callOf(), never)).isError).toBe(false);
    expect(paths).toHaveLength(20);
  });
});

describe("a service that TLS cannot be spoken with", () => {
  const untrusted = "its certificate is not from an authority that is trusted here";
  const refused = "it did not accept this runtime's client certificate, or the lack of one";

  test.each<[string, string, () => Promise<{ origin: string; tls?: ServiceTls }>]>([
    ["an unknown authority", untrusted, async () => secure(authority().issue())],
    [
      "another authority than service_ca",
      untrusted,
      async () => ({ ...(await secure(authority().issue())), tls: { ca: authority().caFile } }),
    ],
    [
      "an expired certificate",
      "its certificate has expired",
      async () => {
        const by = authority();
        return { ...(await secure(by.issue({ from: 2020, until: 2021 }))), tls: { ca: by.caFile } };
      },
    ],
    [
      "a certificate that is not valid yet",
      "its certificate is not valid yet",
      async () => {
        const by = authority();
        return { ...(await secure(by.issue({ from: 2098, until: 2099 }))), tls: { ca: by.caFile } };
      },
    ],
    [
      "a certificate for another address",
      "its certificate is for another name",
      async () => {
        const by = authority();
        return { ...(await secure(by.issue({ names: "IP:127.0.0.2" }))), tls: { ca: by.caFile } };
      },
    ],
    ...(["TLSv1.2", "TLSv1.3"] as const).map(
      (version): [string, string, () => Promise<{ origin: string; tls: ServiceTls }>] => [
        `a demand for a client certificate, over ${version}`,
        refused,
        async () => {
          const by = authority();
          const demanding = { ca: by.ca, requestCert: true, rejectUnauthorized: true, maxVersion: version };
          return { ...(await secure(by.issue(), demanding)), tls: { ca: by.caFile } };
        },
      ],
    ),
    [
      "a demand for another client certificate",
      refused,
      async () => {
        const by = authority();
        const stranger = authority().issue();
        const tls = { ca: by.caFile, cert: stranger.certFile, key: stranger.keyFile };
        return { origin: await demanding(by, by.issue()), tls };
      },
    ],
    [
      "a port that speaks plain HTTP",
      "it does not speak TLS",
      async () => {
        const { port } = await service((_request, response) => response.end());
        return { origin: `https://127.0.0.1:${port}` };
      },
    ],
    [
      "no version of TLS in common",
      "no TLS connection could be made with it",
      async () => {
        const by = authority();
        const old = { maxVersion: "TLSv1.1", minVersion: "TLSv1.1", ciphers: "DEFAULT:@SECLEVEL=0" } as const;
        return { ...(await secure(by.issue(), old)), tls: { ca: by.caFile } };
      },
    ],
  ])(
    "%s: the caller reads why, the operator what to do, and the breaker counts it",
    async (_what, text, make) => {
      const { origin, tls } = await make();
      const { result, executor, lines } = await callAt(origin, tls);
      expect(result.failure).toBeInstanceOf(InfraConnectionError);
      expect(textOf(result)).toBe(`The service behind "sample" could not be reached: ${text}.`);
      expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "closed", failures: 1 });
      expect(lines.find(({ level }) => level === "warn")).toMatchObject({
        level: "warn",
        fields: {
          target: origin,
          reason: expect.stringMatching(/^[A-Z][A-Z0-9_./]+$/),
          remedy: expect.stringMatching(/.{20}/),
        },
      });
    },
  );

  test("five times in a row opens its breaker", async () => {
    const { origin } = await secure(authority().issue());
    const executor = executorOf([onex(origin)]);
    for (let call = 0; call < 5; call++) await executor.call(callOf(), never);
    expect(executor.circuits.circuitState(origin)).toMatchObject({ kind: "open" });
  });

  test("since it is called by http is one that gives no HTTP", async () => {
    const { port } = await secure(authority().issue());
    const { result } = await callAt(`http://127.0.0.1:${port}`);
    expect(result.failure).toBeInstanceOf(InfraConnectionError);
    expect(textOf(result)).toMatch(
      /^The service behind "sample" (broke off|gave an answer that is not valid)/,
    );
  });
});

test("errors that have nothing to do with TLS are left alone", () => {
  expect([tlsProblem(undefined), tlsProblem("ECONNREFUSED"), tlsProblem("UND_ERR_SOCKET")]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
});

describe("the files of TLS are checked at the start", () => {
  const problem = (tls: ServiceTls): string => {
    try {
      executorOf([], { tls });
    } catch (error) {
      expect(error).toBeInstanceOf(ProtocolConfigurationError);
      return (error as Error).message;
    }
    throw new Error("they were accepted");
  };

  test("without any nothing differs from Node's own", () => {
    expect(secureContext({})).toBeUndefined();
  });

  test("a file that is not there", () => {
    const path = join(authority().folder, "missing.pem");
    const remedy = "cannot be read (ENOENT): give the path of a PEM file that this user can read.";
    expect(problem({ ca: path })).toBe(`Config key 'service_ca': ${path} ${remedy}`);
    expect(problem({ cert: path, key: path })).toBe(`Config key 'service_cert': ${path} ${remedy}`);
  });

  test("a relative path is meant from the working directory", () => {
    expect(problem({ ca: "no/such.pem" })).toContain(join(process.cwd(), "no/such.pem"));
  });

  test("a folder, a key in place of a certificate, text without PEM and a damaged certificate", () => {
    const own = authority();
    const { folder, caFile, ca } = own;
    const { keyFile } = own.issue();
    expect(problem({ ca: folder })).toContain("cannot be read (EISDIR)");
    expect(problem({ ca: keyFile })).toBe(
      `Config key 'service_ca': ${keyFile} holds no certificate: give a file with "-----BEGIN CERTIFICATE-----".`,
    );
    const damaged = join(folder, "damaged.pem");
    writeFileSync(damaged, `${ca}${ca.replace(/\n[A-Za-z0-9+/]{20}/, "\nAAAA")}`);
    expect(problem({ ca: damaged })).toMatch(/damaged\.pem has a damaged certificate \(number 2\): /);
    expect(secureContext({ ca: caFile })).toBeDefined();
  });

  test("a key of another certificate, a certificate in place of a key, an encrypted key", () => {
    const by = authority();
    const [own, other] = [by.issue(), by.issue()];
    expect(problem({ cert: own.certFile, key: other.keyFile })).toBe(
      `Config key 'service_key': ${other.keyFile} is not the key of the certificate: give both of one pair.`,
    );
    expect(problem({ cert: own.certFile, key: own.certFile })).toContain(
      "holds no private key: give a file with",
    );
    const encrypted = join(by.folder, "encrypted.key");
    const form = { type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" } as const;
    writeFileSync(encrypted, createPrivateKey(own.key).export(form));
    expect(problem({ cert: own.certFile, key: encrypted })).toContain(
      "is encrypted: give the key without a passphrase",
    );
  });
});

describe("addresses of endpoints", () => {
  test("IPv6, plain and with TLS, with a path below", async () => {
    const own = authority();
    const { origin, paths } = await secure(own.issue({ names: "IP:::1" }), {}, "::1");
    expect((await callAt(`${origin}/v1/`, { ca: own.caFile })).result.isError).toBe(false);
    expect(paths).toEqual(["/v1/run"]);
    const seen: string[] = [];
    const plain = createHttpServer((request, response) => {
      seen.push(`${request.headers.host} ${request.url}`);
      response.end("1");
    });
    await new Promise<void>((resolve) => plain.listen(0, "::1", resolve));
    onTestFinished(async () => {
      const closed = new Promise((resolve) => plain.close(resolve));
      plain.closeAllConnections();
      await closed;
    });
    const host = `[::1]:${(plain.address() as AddressInfo).port}`;
    const executor = executorOf([
      onex(`http://${host}`, "/nodes/a", { name: "onex" }),
      rest({ method: "GET", url: `http://${host}/items/{id}?x=1` }, { name: "rest" }),
      toolOf(
        { kind: "rest", method: "GET", url: "/items/{id}" },
        { name: "service", endpoints: [{ id: "a", url: `http://${host}/base`, weight: 1 }] },
      ),
    ]);
    for (const name of ["onex", "rest", "service"])
      expect((await executor.call(callOf({ id: 7 }, { name }), never)).isError).toBe(false);
    expect(seen).toEqual([`${host} /nodes/a`, `${host} /items/7?x=1`, `${host} /base/items/7`]);
    expect([...executor.circuits.circuitStates().keys()]).toEqual([`http://${host}`]);
  });

  test("a connection that is open but silent in the handshake ends with the call's deadline", async () => {
    const silent = createTcpServer((socket) => socket.resume());
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void silent.close());
    const { port } = silent.address() as AddressInfo;
    const executor = executorOf([onex(`https://127.0.0.1:${port}`, "/run", { timeoutSeconds: 0.3 })]);
    const result = await executor.call(callOf(), never);
    expect(textOf(result)).toBe('The tool "sample" took longer than 0.3 s.');
  });
});
