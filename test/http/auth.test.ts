import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { ProtocolConfigurationError } from "../../src/core/errors.ts";
import { silentLogger, type LogFields, type Logger } from "../../src/core/log.ts";
import { assertSafeBinding, createAuthenticator, type ApiKey } from "../../src/http/auth.ts";

const digest = (key: string): string => createHash("sha256").update(key).digest("hex");
const apiKeys: readonly ApiKey[] = [
  { name: "ci", role: "user", sha256: digest("key-of-ci") },
  { name: "ops", role: "admin", key: "key-of-ops" },
];

function recordingLog(): Logger & { readonly lines: (LogFields & { message: string })[] } {
  const lines: (LogFields & { message: string })[] = [];
  return { ...silentLogger, lines, warn: (fields, message) => void lines.push({ ...fields, message }) };
}

const withKeys = (log: Logger = silentLogger): ReturnType<typeof createAuthenticator> =>
  createAuthenticator({ apiKeys, loopbackIsAdmin: true, log });

describe("API keys", () => {
  test.each([
    ["x-mcp-api-key", "key-of-ci"],
    ["x-api-key", "key-of-ci"],
    ["authorization", "Bearer key-of-ci"],
    ["authorization", "bearer  key-of-ci "],
  ])("a known key in %s: %s names its caller, on raw and on web headers", (name, value) => {
    const expected = { ok: true, principal: { name: "ci", role: "user" } };
    expect(withKeys().authenticate({ [name]: value })).toEqual(expected);
    expect(withKeys().authenticate(new Headers({ [name]: value }))).toEqual(expected);
  });

  test("a key configured in plain is known like one configured by its digest", () => {
    expect(withKeys().authenticate({ "x-api-key": "key-of-ops" })).toEqual({
      ok: true,
      principal: { name: "ops", role: "admin" },
    });
  });

  test.each([
    ["no header", {}],
    ["an unknown key", { "x-api-key": "nobody" }],
    ["an empty key", { "x-api-key": "" }],
    ["a digest in place of its key", { "x-api-key": digest("key-of-ci") }],
    ["another scheme", { authorization: "Basic a2V5LW9mLWNp" }],
    ["a key without its scheme", { authorization: "key-of-ci" }],
    ["two keys in one header", { "x-api-key": "key-of-ci, key-of-ops" }],
  ])("%s is refused", (_title, headers) => {
    expect(withKeys().authenticate(headers)).toMatchObject({ ok: false, error: { httpStatus: 401 } });
  });

  test("two headers with one key agree, two with different known keys do not", () => {
    const agree = { "x-api-key": "key-of-ci", authorization: "Bearer key-of-ci" };
    expect(withKeys().authenticate(agree).ok).toBe(true);
    const differ = { "x-api-key": "key-of-ci", "x-mcp-api-key": "key-of-ops" };
    expect(withKeys().authenticate(differ)).toMatchObject({
      ok: false,
      error: { facts: { reason: "conflicting_keys" } },
    });
  });

  test("a failure leaves one audit line, without key material in it or in the error", () => {
    const log = recordingLog();
    const result = withKeys(log).authenticate({ "x-api-key": "a-secret-guess" });
    expect(log.lines).toEqual([
      { event: "authentication_failure", reason: "unknown_key", message: "The API key is not known" },
    ]);
    expect(JSON.stringify([log.lines, result])).not.toMatch(/a-secret-guess|key-of/);
  });

  test("a success leaves none, and looking who it is leaves none either", () => {
    const log = recordingLog();
    const authenticator = withKeys(log);
    authenticator.authenticate({ "x-api-key": "key-of-ci" });
    expect(authenticator.identify(new Request("http://localhost/"))).toBeUndefined();
    expect(log.lines).toEqual([]);
  });
});

describe("configuration", () => {
  const create =
    (key: ApiKey, ...more: ApiKey[]) =>
    () =>
      createAuthenticator({ apiKeys: [key, ...more], loopbackIsAdmin: true, log: silentLogger });

  test("a digest that is none is refused without being shown", () => {
    const wrong = create({ name: "ci", role: "user", sha256: "the key itself" });
    expect(wrong).toThrow(ProtocolConfigurationError);
    expect(wrong).toThrow(/api_keys\[0\] \(ci\): sha256 must be 64 hex digits/);
    expect(wrong).not.toThrow(/the key itself/);
  });

  test("an empty key, an empty name and one key for two names are refused", () => {
    expect(create({ name: "ci", role: "user", key: " " })).toThrow(/key is empty/);
    expect(create({ name: "", role: "user", key: "k" })).toThrow(/name is empty/);
    expect(
      create({ name: "a", role: "user", key: "k" }, { name: "b", role: "admin", sha256: digest("k") }),
    ).toThrow(/a and b have the same key/);
  });
});

describe("roles", () => {
  const request = (key?: string): Request =>
    new Request("http://localhost/", { headers: key === undefined ? {} : { "x-api-key": key } });

  test("without keys every caller is admin on loopback and a user elsewhere", () => {
    const on = (loopbackIsAdmin: boolean): unknown =>
      createAuthenticator({ apiKeys: [], loopbackIsAdmin, log: silentLogger }).authenticate({});
    expect(on(true)).toMatchObject({ ok: true, principal: { role: "admin" } });
    expect(on(false)).toMatchObject({ ok: true, principal: { role: "user" } });
  });

  test("an admin holds both roles, a user only their own: 403, and a stranger is 401 with a challenge", async () => {
    const { authorize } = withKeys();
    expect(authorize(request("key-of-ops"), "user")).toMatchObject({ name: "ops" });
    expect(authorize(request("key-of-ops"), "admin")).toMatchObject({ name: "ops" });
    expect(authorize(request("key-of-ci"), "user")).toMatchObject({ name: "ci" });
    const forbidden = authorize(request("key-of-ci"), "admin") as Response;
    expect([forbidden.status, await forbidden.json()]).toMatchObject([403, { detail: "Not permitted." }]);
    const unknown = authorize(request(), "user") as Response;
    expect(unknown.status).toBe(401);
    expect(unknown.headers.get("www-authenticate")).toMatch(/^Bearer/);
  });
});

describe("binding", () => {
  const none = { hasAuthentication: false, allowUnauthenticated: false };
  test.each(["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"])("%s needs no authentication", (host) => {
    expect(() => assertSafeBinding({ host, ...none })).not.toThrow();
  });

  test.each(["0.0.0.0", "::", "10.0.0.5", "gw.example.com", "127.0.0.1.example.com"])(
    "%s without authentication refuses to start and says what to do",
    (host) => {
      expect(() => assertSafeBinding({ host, ...none })).toThrow(ProtocolConfigurationError);
      expect(() => assertSafeBinding({ host, ...none })).toThrow(
        /refuses to start on .* Set api_keys, or bind to 127\.0\.0\.1, or set allow_unauthenticated: true/,
      );
    },
  );

  test("keys, or the express wish, allow any address", () => {
    expect(() => assertSafeBinding({ host: "0.0.0.0", ...none, hasAuthentication: true })).not.toThrow();
    expect(() => assertSafeBinding({ host: "0.0.0.0", ...none, allowUnauthenticated: true })).not.toThrow();
  });
});
