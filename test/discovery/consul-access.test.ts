import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it, onTestFinished } from "vitest";
import { consulProgram } from "../services/programs.ts";
import { describeWithOwnConsul, startConsul, type Consul, type ConsulOptions } from "../services/index.ts";
import { follow, Operator, optionsOf } from "./consul-agent.ts";

const run = promisify(execFile);

async function ownConsul(options: ConsulOptions): Promise<Consul> {
  const consul = await startConsul(options);
  onTestFinished(() => consul.stop());
  return consul;
}

describeWithOwnConsul("a Consul with access control", () => {
  it("is read with the token, as far as the token may; what is left out or refused is said", async () => {
    const management = randomUUID();
    const consul = await ownConsul({
      config: { acl: { enabled: true, default_policy: "deny", tokens: { initial_management: management } } },
    });
    const operator = new Operator(consul, management);
    const token = async (name: string, rules: string): Promise<string> => {
      await operator.put("/acl/policy", { Name: name, Rules: rules });
      const made = (await operator.put("/acl/token", { Policies: [{ Name: name }] })) as {
        AccessorID: string;
        SecretID: string;
      };
      return made.SecretID;
    };
    await operator.register("shown");
    await operator.register("secret");
    const everything =
      'node_prefix "" {policy = "read"} service_prefix "" {policy = "read"} key_prefix "" {policy = "read"}';
    const all = await token("all", everything);
    const part = await token(
      "part",
      'node_prefix "" {policy = "read"} service "shown" {policy = "read"} key_prefix "onex/" {policy = "read"}',
    );
    await operator.put(
      "/kv/onex/contracts/nodes/shown",
      "name: n\nnode_type: ORCHESTRATOR\nmcp: {title: Shown}",
    );

    await using none = await follow(optionsOf(consul));
    expect(none.source.status()).toMatchObject({
      state: "starting",
      lastError: expect.stringMatching(/shows no node: give consul_token/) as string,
    });

    await using unknown = await follow({ ...optionsOf(consul), token: randomUUID() });
    expect(unknown.source.status()).toMatchObject({
      state: "starting",
      lastError: expect.stringMatching(/403.*ACL not found.*check consul_token/) as string,
    });

    await using whole = await follow({ ...optionsOf(consul), token: all });
    expect([...whole.records.keys()].sort()).toEqual(["test/secret", "test/shown"]);
    expect(whole.instance("shown")?.definition.title).toBe("Shown");
    expect(whole.source.status()).toEqual({ name: "consul", kind: "consul", state: "ready", ageSeconds: 0 });

    await using partial = await follow({ ...optionsOf(consul), token: part });
    expect([...partial.records.keys()]).toEqual(["test/shown"]);
    expect(partial.source.status()).toMatchObject({
      state: "ready",
      lastError: expect.stringContaining("leaves out") as string,
    });
    for (const { lastError } of [unknown, whole, partial].map(({ source }) => source.status()))
      for (const secret of [all, part]) expect(lastError ?? "").not.toContain(secret);

    // A token that may suddenly read nothing is no reason to drop what it has read.
    await operator.put("/acl/policy", { Name: "nothing", Rules: "" });
    const self = (await operator.put(`/acl/token`, { Policies: [{ Name: "all" }] })) as {
      AccessorID: string;
      SecretID: string;
    };
    await using revoked = await follow({ ...optionsOf(consul), token: self.SecretID });
    expect(revoked.records.size).toBe(2);
    const changes = revoked.changes.length;
    await operator.put(`/acl/token/${self.AccessorID}`, {
      AccessorID: self.AccessorID,
      Policies: [{ Name: "nothing" }],
    });
    // A query that waits goes on with what the token was allowed when it began.
    await operator.register("shown", { Meta: { "mcp-path": "/1" } });
    await operator.register("shown", { Meta: { "mcp-path": "/2" } });
    await expect.poll(() => revoked.source.status().state).toBe("degraded");
    expect(revoked.changes.slice(changes).flatMap(({ remove }) => remove)).toEqual([]);
    expect(revoked.records.size).toBe(2);
  });
});

describeWithOwnConsul("a Consul that takes rights back", () => {
  const management = randomUUID();
  const reading = 'node_prefix "" {policy = "read"} service_prefix "" {policy = "read"}';
  const guarded = async (): Promise<{ consul: Consul; operator: Operator }> => {
    const tokens = { initial_management: management };
    const consul = await ownConsul({ config: { acl: { enabled: true, default_policy: "deny", tokens } } });
    return { consul, operator: new Operator(consul, management) };
  };

  it("from the contracts leaves those that are known in force, until they are seen to be gone", async () => {
    const { consul, operator } = await guarded();
    const policy = (await operator.put("/acl/policy", {
      Name: "all",
      Rules: `${reading} key_prefix "" {policy = "read"}`,
    })) as { ID: string };
    const { SecretID: token } = (await operator.put("/acl/token", { Policies: [{ Name: "all" }] })) as {
      SecretID: string;
    };
    const allow = (keys: string): Promise<unknown> =>
      operator.put(`/acl/policy/${policy.ID}`, { ID: policy.ID, Name: "all", Rules: `${reading} ${keys}` });
    const contract = (title: string): string => `name: n\nnode_type: ORCHESTRATOR\nmcp: {title: ${title}}`;
    const key = (name: string): string => `onex/contracts/nodes/${name}`;
    for (const name of ["lost", "kept"]) {
      await operator.register(name);
      await operator.put(`/kv/${key(name)}`, contract(`First ${name}`));
    }
    await using followed = await follow({ ...optionsOf(consul), token });
    const titles = (): (string | undefined)[] =>
      ["lost", "kept"].map((name) => followed.instance(name)?.definition.title);
    expect(titles()).toEqual(["First lost", "First kept"]);

    await allow(`key "${key("kept")}" {policy = "read"}`);
    // A query that waits goes on with what the token was allowed when it began.
    for (const round of [1, 2]) await operator.put(`/kv/${key("kept")}`, contract(`Kept ${round}`));
    await expect.poll(() => followed.source.status().lastError).toContain("leaves out");
    await followed.until(() => titles()[1] === "Kept 2");
    expect(titles()).toEqual(["First lost", "Kept 2"]);

    await operator.deleteKey(key("kept"));
    await followed.until(() => titles()[1] === undefined);
    expect(titles()[0]).toBe("First lost");

    await allow("");
    for (const round of [1, 2]) await operator.put(`/kv/${key("other")}`, String(round));
    await operator.register("lost", { Meta: { "mcp-path": "/1" } });
    await followed.until(() => followed.instance("lost")?.url?.endsWith("/1"));
    expect(titles()[0]).toBe("First lost");

    await allow('key_prefix "" {policy = "read"}');
    await operator.deleteKey(key("lost"));
    await followed.until(() => titles()[0] === undefined);
    await operator.put(`/kv/${key("other")}`, "3");
    await expect.poll(() => followed.source.status().lastError).toBeUndefined();
  });

  it("from one service leaves it known, until it is gone", async () => {
    const { consul, operator } = await guarded();
    const rules = (services: string): object => ({
      Name: "some",
      Rules: `node_prefix "" {policy = "read"} ${services}`,
    });
    const all = 'service_prefix "" {policy = "read"}';
    const { ID } = (await operator.put("/acl/policy", rules(all))) as { ID: string };
    const { SecretID: token } = (await operator.put("/acl/token", { Policies: [{ Name: "some" }] })) as {
      SecretID: string;
    };
    for (const name of ["hidden", "shown"]) await operator.register(name);
    await using followed = await follow({ ...optionsOf(consul), token });
    expect([...followed.records.keys()].sort()).toEqual(["test/hidden", "test/shown"]);
    await operator.put(`/acl/policy/${ID}`, { ID, ...rules('service "shown" {policy = "read"}') });
    for (const round of [1, 2]) await operator.register("shown", { Meta: { "mcp-path": `/${round}` } });
    await followed.until(() => followed.instance("shown")?.url?.endsWith("/2"));
    await expect.poll(() => followed.source.status().lastError).toContain("leaves out");
    expect(await followed.source.lookUp("hidden", "hidden")).toMatchObject({ serviceId: "hidden" });
    await operator.deregister("hidden");
    // This agent has no token with which to tell the catalog itself.
    await operator.put("/catalog/deregister", { Node: "test", ServiceID: "hidden" });
    await followed.until(() => followed.of("hidden").length === 0);
  });

  it("from clients without a token leaves what they have read, although it never says that it hides something", async () => {
    const { consul, operator } = await guarded();
    const policy = (await operator.put("/acl/policy", { Name: "anyone", Rules: reading })) as { ID: string };
    const anonymous = "00000000-0000-0000-0000-000000000002";
    await operator.put(`/acl/token/${anonymous}`, { Policies: [{ Name: "anyone" }] });
    await operator.register("shown");
    await using followed = await follow(optionsOf(consul));
    expect(followed.of("shown")).toHaveLength(1);
    await operator.put(`/acl/policy/${policy.ID}`, { ID: policy.ID, Name: "anyone", Rules: "" });
    // By an event, say: the service is read although no waiting query has ended.
    await expect(followed.source.lookUp("another", "shown")).rejects.toThrow(/shows no node/);
    expect(followed.of("shown")).toHaveLength(1);
  });
});

describeWithOwnConsul("a Consul of another datacenter", () => {
  it("is asked for the datacenter by name; one that it does not know is said", async () => {
    const consul = await ownConsul({ config: { datacenter: "east" } });
    await new Operator(consul).register("eastern");
    await using east = await follow({ ...optionsOf(consul), datacenter: "east" });
    expect(east.of("eastern")).toHaveLength(1);
    await using west = await follow({ ...optionsOf(consul), datacenter: "west" });
    expect(west.source.status()).toMatchObject({
      state: "starting",
      lastError: expect.stringMatching(/500.*No path to datacenter/) as string,
    });
  });
});

describeWithOwnConsul("a Consul with TLS", () => {
  it("is trusted by its own certificate authority, and by no other", async () => {
    const folder = await mkdtemp(join(tmpdir(), "onex-tls-"));
    onTestFinished(() => rm(folder, { recursive: true }));
    const program = await consulProgram(() => undefined);
    await run(program, ["tls", "ca", "create"], { cwd: folder });
    await run(program, ["tls", "cert", "create", "-server", "-dc", "dc1"], { cwd: folder });
    const ca = join(folder, "consul-agent-ca.pem");
    const consul = await ownConsul({
      tls: {
        key: await readFile(join(folder, "dc1-server-consul-0-key.pem"), "utf8"),
        cert: await readFile(join(folder, "dc1-server-consul-0.pem"), "utf8"),
      },
    });
    await new Operator(consul).register("safe");
    const secure = { host: consul.host, port: consul.httpsPort!, scheme: "https" } as const;
    await using trusting = await follow({ ...secure, ca });
    expect(trusting.of("safe")).toHaveLength(1);
    await using doubting = await follow(secure);
    expect(doubting.source.status()).toMatchObject({
      state: "starting",
      lastError: expect.stringMatching(/cannot be reached.*certificate/) as string,
    });
    await expect(follow({ ...secure, ca: join(folder, "none.pem") })).rejects.toThrow(
      /consul_ca cannot be read.*none\.pem/,
    );
  });
});
