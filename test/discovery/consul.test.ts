import { expect, it, onTestFinished } from "vitest";
import { openConsul, type ConsulClient } from "../../src/discovery/consul-client.ts";
import { idFilter } from "../../src/discovery/consul-filter.ts";
import { consulAddress, describeWithConsul } from "../services/index.ts";
import { follow, type Followed, Operator, optionsOf, toolTags, uniqueName } from "./consul-agent.ts";

/** A source and an operator; the services of the test go when it ends. */
async function setUp(
  ...ids: readonly string[]
): Promise<{ followed: Followed; operator: Operator; consul: ConsulClient }> {
  const operator = new Operator(consulAddress());
  const consul = await openConsul(optionsOf(consulAddress()));
  const followed = await follow(optionsOf(consulAddress()));
  onTestFinished(async () => {
    await followed.source.close();
    for (const id of ids) await operator.deregister(id).catch(() => undefined);
    consul.close();
  });
  return { followed, operator, consul };
}

describeWithConsul("a service in Consul", () => {
  it("is stated when it registers and gone when it deregisters", async () => {
    const id = uniqueName("orders");
    const { followed, operator } = await setUp(id);
    await operator.register(id, { Meta: { "mcp-path": "/run" }, Weights: { Passing: 5, Warning: 1 } });
    await followed.until(() => followed.of(id).length === 1);
    expect(followed.instance(id)).toMatchObject({
      source: "consul",
      serviceName: id,
      claim: { toolName: id },
      url: "http://127.0.0.1:9000/run",
      weight: 5,
      live: true,
    });
    await operator.deregister(id);
    await followed.until(() => followed.of(id).length === 0);
  });

  it("that was there before the source starts is in its first change", async () => {
    const id = uniqueName("early");
    const operator = new Operator(consulAddress());
    await operator.register(id);
    onTestFinished(() => operator.deregister(id));
    await using followed = await follow(optionsOf(consulAddress()));
    expect(followed.changes).toHaveLength(1);
    expect(followed.instance(id)).toMatchObject({ claim: { toolName: id } });
    expect(followed.source.status()).toMatchObject({
      name: "consul",
      kind: "consul",
      state: "ready",
      ageSeconds: 0,
    });
  });

  it("is stated anew when only its address, its meta or its weight has changed", async () => {
    const [id, other] = [uniqueName("meta"), uniqueName("meta")];
    const { followed, operator } = await setUp(id, other);
    await operator.register(id);
    await operator.register(other);
    await followed.until(() => followed.of(id).length === 1 && followed.of(other).length === 1);
    await operator.register(id, { Meta: { "mcp-path": "/v2" } });
    await followed.until(() => followed.instance(id)?.url === "http://127.0.0.1:9000/v2");
    await operator.register(id, { Address: "fd00::9", Port: 9001 });
    await followed.until(() => followed.instance(id)?.url === "http://[fd00::9]:9001");
    await operator.register(id, { Weights: { Passing: 9, Warning: 1 } });
    await followed.until(() => followed.instance(id)?.weight === 9);
    const before = followed.instance(id)?.index ?? 0;
    await operator.register(id, { Weights: { Passing: 3, Warning: 1 } });
    await followed.until(() => (followed.instance(id)?.index ?? 0) > before);
  });

  it("with a second instance under the same tags has two, each with its own address", async () => {
    const name = uniqueName("twins");
    const { followed, operator } = await setUp(`${name}.1`, `${name}.2`);
    await operator.register(`${name}.1`, { Name: name, Port: 9001 });
    await followed.until(() => followed.of(`${name}.1`).length === 1);
    await operator.register(`${name}.2`, { Name: name, Port: 9002 });
    await followed.until(() => followed.instance(`${name}.2`)?.url === "http://127.0.0.1:9002");
    await operator.deregister(`${name}.1`);
    await followed.until(() => followed.of(`${name}.1`).length === 0);
    expect(followed.instance(`${name}.2`)).toBeDefined();
  });

  it("may carry two tools on two instances: tags are never merged", async () => {
    const name = uniqueName("onex-orchestrator");
    const { followed, operator } = await setUp(`${name}.1`, `${name}.2`, `${name}.3`);
    await operator.register(`${name}.1`, { Name: name, Tags: toolTags("tool_a") });
    await operator.register(`${name}.2`, { Name: name, Tags: toolTags("tool_b") });
    await operator.register(`${name}.3`, { Name: name, Tags: ["mcp-enabled"] });
    await followed.until(() => [1, 2, 3].every((n) => followed.of(`${name}.${n}`).length === 1));
    expect(followed.instance(`${name}.1`)?.claim).toEqual({ toolName: "tool_a" });
    expect(followed.instance(`${name}.2`)?.claim).toEqual({ toolName: "tool_b" });
    expect(followed.instance(`${name}.3`)?.claim).toEqual({
      refused: "the tag node-type:orchestrator is missing",
    });
    const reported = followed.source.report().find(({ key }) => key.endsWith(`/${name}.3`));
    expect(reported).toMatchObject({ reason: "the tag node-type:orchestrator is missing" });
  });

  it("that renames its tool or loses its tag is what it says now", async () => {
    const id = uniqueName("rename");
    const { followed, operator } = await setUp(id);
    await operator.register(id);
    await followed.until(() => followed.of(id).length === 1);
    await operator.register(id, { Tags: toolTags("another") });
    await followed.until(() => {
      const claim = followed.instance(id)?.claim;
      return claim !== undefined && "toolName" in claim && claim.toolName === "another";
    });
    await operator.register(id, { Tags: ["plain"] });
    await followed.until(() => followed.of(id).length === 0);
  });

  it("without mcp-enabled is none of ours", async () => {
    const [plain, ours] = [uniqueName("plain"), uniqueName("ours")];
    const { followed, operator } = await setUp(plain, ours);
    await operator.register(plain, { Tags: ["node-type:orchestrator", "mcp-tool:x"] });
    await operator.register(ours);
    await followed.until(() => followed.of(ours).length === 1);
    expect(followed.of(plain)).toEqual([]);
  });

  it("is called only while its check passes: a warning and a failure take it out, with the reason", async () => {
    const id = uniqueName("checked");
    const { followed, operator } = await setUp(id);
    await operator.register(id, { Check: { CheckID: `${id}-ttl`, Name: "heartbeat", TTL: "300s" } });
    await followed.until(() => followed.instance(id)?.live === false);
    expect(followed.instance(id)?.down).toBe('its check "heartbeat" is critical');
    await operator.put(`/agent/check/pass/${id}-ttl`);
    await followed.until(() => followed.instance(id)?.live === true);
    await operator.put(`/agent/check/warn/${id}-ttl`);
    await followed.until(() => followed.instance(id)?.down === 'its check "heartbeat" is warning');
    await operator.put(`/agent/check/pass/${id}-ttl`);
    await followed.until(
      () => followed.instance(id)?.live === true && followed.instance(id)?.down === undefined,
    );
  });

  it("in maintenance is not called until maintenance ends", async () => {
    const id = uniqueName("maintained");
    const { followed, operator } = await setUp(id);
    await operator.register(id);
    await followed.until(() => followed.instance(id)?.live === true);
    await operator.put(`/agent/service/maintenance/${id}?enable=true&reason=upgrade`);
    await followed.until(() => followed.instance(id)?.down === "it is in maintenance: upgrade");
    await operator.put(`/agent/service/maintenance/${id}?enable=false`);
    await followed.until(() => followed.instance(id)?.live === true);
  });

  it("is found at once when an event asks for it, by name or by id alone", async () => {
    const [byName, byId] = [uniqueName("asked"), uniqueName("asked")];
    const { followed, operator } = await setUp(byName, byId);
    await operator.register(byName);
    const found = { serviceId: byName, serviceName: byName, url: "http://127.0.0.1:9000" };
    await expect(followed.source.lookUp(byName, byName)).resolves.toMatchObject(found);
    expect(followed.of(byName)).toHaveLength(1);
    await operator.register(byId, { Name: uniqueName("of-another-name") });
    await expect(followed.source.lookUp(byId, undefined)).resolves.toMatchObject({ serviceId: byId });
    expect(followed.of(byId)).toHaveLength(1);
    // Consul's filter language knows no escapes, and two kinds of quotation marks.
    for (const sign of ['"', "`", "\\", "'", '"`', "\u00e9", " or ID != "]) {
      const odd = `${byId}${sign}`;
      await operator.register(odd, { Name: byName });
      await expect(followed.source.lookUp(odd, undefined), odd).resolves.toMatchObject({ serviceId: odd });
      await operator.deregister(encodeURIComponent(odd));
    }
    await expect(followed.source.lookUp("nobody", "nobody")).resolves.toBeUndefined();
    await expect(followed.source.lookUp("nobody", undefined)).resolves.toBeUndefined();
  });

  it("is found among the agent's by its id alone, whatever the signs in it", async () => {
    const ids = ['"', "`", "\\", "'", '"`', "\u00e9"].map((sign) => uniqueName(`odd${sign}`));
    const { operator, consul } = await setUp(...ids.map(encodeURIComponent));
    for (const id of ids) await operator.register(id, { Name: "odd", Tags: [] });
    for (const asked of [...ids.map((id) => [id]), ids.slice(0, 2)]) {
      const filter = idFilter(asked);
      const found = (await consul.agentServices(filter === undefined ? {} : { filter })).map(({ ID }) => ID);
      if (filter === undefined) expect(found).toEqual(expect.arrayContaining(asked));
      else expect(found.sort()).toEqual([...asked].sort());
    }
    expect(ids.map((id) => idFilter([id]) === undefined)).toEqual([false, false, false, false, true, false]);
  });

  it("without the tag counts where an event asks for it, claims nothing, and is followed until it is dismissed", async () => {
    const [plain, other] = [uniqueName("plain"), uniqueName("other")];
    const { followed, operator } = await setUp(plain, other);
    const register = (port: number): Promise<void> => operator.register(plain, { Tags: ["web"], Port: port });
    await register(9001);
    await operator.register(other);
    await followed.until(() => followed.of(other).length === 1);
    expect(followed.of(plain)).toEqual([]);
    // An event may have another name for the service than Consul.
    const found = await followed.source.lookUp(plain, uniqueName("elsewhere"));
    expect(found).toMatchObject({ serviceName: plain, url: "http://127.0.0.1:9001" });
    expect(found).not.toHaveProperty("claim");
    expect(followed.of(plain)).toEqual([found]);
    await register(9002);
    await followed.until(() => followed.instance(plain)?.url === "http://127.0.0.1:9002");
    await operator.put(`/agent/service/maintenance/${plain}?enable=true&reason=upgrade`);
    await followed.until(() => followed.instance(plain)?.live === false);
    await operator.deregister(plain);
    await followed.until(() => followed.of(plain).length === 0);
    // It may come back without another event.
    await register(9003);
    await followed.until(() => followed.instance(plain)?.url === "http://127.0.0.1:9003");
    followed.source.dismiss(plain);
    await operator.deregister(plain);
    await followed.until(() => followed.of(plain).length === 0);
    await register(9004);
    await operator.register(other, { Meta: { "mcp-path": "/new" } });
    await followed.until(() => followed.instance(other)?.url?.endsWith("/new"));
    expect(followed.of(plain)).toEqual([]);
  });

  it("is followed no more after close, which ends waiting queries at once", async () => {
    const id = uniqueName("late");
    const { followed, operator } = await setUp(id);
    const changes = followed.changes.length;
    await Promise.all([followed.source.close(), followed.source.close()]);
    expect(followed.source.status().state).toBe("closed");
    await operator.register(id);
    await expect(followed.source.lookUp(id, id)).rejects.toThrow("not running");
    expect(followed.changes).toHaveLength(changes);
  });

  it("can be waited for by a source only once", async () => {
    const { followed } = await setUp();
    await expect(followed.source.start(() => undefined)).rejects.toThrow("only once");
  });
});

describeWithConsul("a contract in Consul", () => {
  const contract = (lines: string): string =>
    `name: n\nnode_type: ORCHESTRATOR_GENERIC\nnode_version: 2.1.0\n${lines}`;

  it("says what its tool is, as soon as it appears, changes, breaks, mends and goes", async () => {
    const id = uniqueName("contracted");
    const { followed, operator, consul } = await setUp(id);
    const key = `onex/contracts/nodes/${id}`;
    onTestFinished(() => operator.deleteKey(key));
    await operator.register(id);
    await followed.until(() => followed.of(id).length === 1);
    expect(followed.instance(id)?.definition).toEqual({ tags: toolTags(id) });

    await consul.putKey(
      key,
      contract(
        "mcp: {description: 'Reads ${HOME}.', timeout_seconds: 9, input_schema: {type: object, properties: {a: {type: string}}}}",
      ),
    );
    await followed.until(() => followed.instance(id)?.definition.version === "2.1.0");
    expect(followed.instance(id)?.definition).toMatchObject({
      description: "Reads ${HOME}.",
      timeoutSeconds: 9,
      inputSchema: { type: "object", properties: { a: { type: "string" } } },
    });

    await consul.putKey(key, contract("mcp: {description: Second.}"));
    await followed.until(() => followed.instance(id)?.definition.description === "Second.");

    await consul.putKey(key, contract("mcp: {timeout_seconds: 9000}"));
    await expect
      .poll(() => followed.source.report())
      .toContainEqual({
        key,
        reason: expect.stringMatching(/timeout_seconds.*the last good version stays/) as string,
      });
    expect(followed.instance(id)).toMatchObject({
      claim: { toolName: id },
      definition: { description: "Second." },
    });
    expect(followed.source.status().lastError).toContain("last good version stays");

    await consul.putKey(key, contract("mcp: {description: Third.}"));
    await followed.until(() => followed.instance(id)?.definition.description === "Third.");
    await consul.deleteKey(key);
    await followed.until(() => followed.instance(id)?.definition.description === undefined);
  });

  it("that was never good keeps its instance from being a tool, and says why", async () => {
    const id = uniqueName("broken");
    const { followed, operator, consul } = await setUp(id);
    const key = `onex/contracts/nodes/${id}`;
    onTestFinished(() => operator.deleteKey(key));
    await consul.putKey(key, contract("mcp: {execution: {kind: local, module: ./x.mjs}}"));
    await operator.register(id);
    await followed.until(() => followed.of(id).length === 1);
    expect(followed.instance(id)?.claim).toEqual({
      refused: expect.stringMatching(new RegExp(`${key}.*local is for contract files only`)) as string,
    });
    await consul.putKey(key, contract("mcp: {execution: {kind: rest, method: GET, url: '/v1/{id}'}}"));
    await followed.until(() => "toolName" in (followed.instance(id)?.claim ?? {}));
    expect(followed.instance(id)?.definition.execution).toEqual({
      kind: "rest",
      method: "GET",
      url: "/v1/{id}",
    });
  });

  it("may lie under any key that meta names; then it must be there", async () => {
    const id = uniqueName("named");
    const { followed, operator, consul } = await setUp(id, `${id}-wake`);
    const key = `teams/${id}.yaml`;
    onTestFinished(() => operator.deleteKey(key));
    await operator.register(id, { Meta: { "mcp-contract": key } });
    await followed.until(() => followed.of(id).length === 1);
    expect(followed.instance(id)?.claim).toEqual({
      refused: `the tool ${id}: its contract ${key} (meta mcp-contract) is not in Consul`,
    });
    await consul.putKey(key, contract("mcp: {title: Named}"));
    await operator.register(id, { Meta: { "mcp-contract": key, "mcp-path": "/x" } });
    await followed.until(() => followed.instance(id)?.definition.title === "Named");
    // Such a key is looked at again whenever the services are.
    await consul.putKey(key, contract("mcp: {title: Renamed}"));
    await operator.register(`${id}-wake`, { Tags: [] });
    await followed.until(() => followed.instance(id)?.definition.title === "Renamed");
  });
});

describeWithConsul("the Consul client", () => {
  it("reads, writes and deletes keys, whatever is in them", async () => {
    const { consul } = await setUp();
    const prefix = `test/${uniqueName("keys")}/`;
    await consul.putKey(`${prefix}a b/ü`, "größer ${HOME}");
    await consul.putKey(`${prefix}empty`, "");
    const keys = await consul.readKeys(prefix);
    expect(keys.map(({ key, value }) => [key, new TextDecoder().decode(value)])).toEqual([
      [`${prefix}a b/ü`, "größer ${HOME}"],
      [`${prefix}empty`, ""],
    ]);
    expect((await consul.readKey(`${prefix}empty`))?.modifyIndex).toBeGreaterThan(0);
    for (const { key } of keys) await consul.deleteKey(key);
    await consul.deleteKey(`${prefix}never`);
    expect(await consul.readKeys(prefix)).toEqual([]);
    expect(await consul.readKey(`${prefix}empty`)).toBeUndefined();
  });

  it("registers a service with a TTL check, passes it, and deregisters it", async () => {
    const id = uniqueName("ours");
    const { consul, followed } = await setUp(id);
    await consul.registerService({
      id,
      name: id,
      address: "127.0.0.1",
      port: 8090,
      tags: toolTags(id),
      meta: { "mcp-path": "/mcp" },
      check: { id: `${id}-ttl`, ttl: "60s", deregisterAfter: "10m" },
    });
    await followed.until(() => followed.instance(id)?.live === false);
    await consul.passTtl(`${id}-ttl`);
    await followed.until(() => followed.instance(id)?.live === true);
    expect(followed.instance(id)?.url).toBe("http://127.0.0.1:8090/mcp");
    expect(await consul.agentServices({ filter: `ID == "${id}"` })).toMatchObject([{ ID: id }]);
    await consul.deregisterService(id);
    await followed.until(() => followed.of(id).length === 0);
    await expect(consul.deregisterService(id)).rejects.toThrow(/404.*Unknown service/);
  });

  it("is of no use after close, and cancels what waits", async () => {
    const consul = await openConsul(optionsOf(consulAddress()));
    const { index } = await consul.keys("test/none/");
    const waiting = consul.keys("test/none/", { wait: { index: index + 1000, seconds: 300 } });
    const aborted = new AbortController();
    const withSignal = consul.services({ wait: { index: 1e9, seconds: 300 }, signal: aborted.signal });
    aborted.abort(new Error("not wanted any more"));
    await expect(withSignal).rejects.toThrow("not wanted any more");
    consul.close();
    consul.close();
    await expect(waiting).rejects.toThrow("closed");
    await expect(consul.readKey("x")).rejects.toThrow("closed");
  });
});
