import { expect, it, onTestFinished } from "vitest";
import { describeWithOwnConsul, startConsul, type Consul } from "../services/index.ts";
import { follow, Operator, optionsOf, toolTags } from "./consul-agent.ts";
import { relayTo } from "./relay.ts";

async function ownConsul(
  config?: Readonly<Record<string, unknown>>,
): Promise<{ consul: Consul; operator: Operator }> {
  const consul = await startConsul(config === undefined ? {} : { config });
  onTestFinished(() => consul.stop());
  return { consul, operator: new Operator(consul) };
}

describeWithOwnConsul("a Consul that goes away", () => {
  it("takes nothing with it: the state stays and is said to be old, and is right soon after its return", async () => {
    const { consul, operator } = await ownConsul();
    await operator.register("stays");
    await operator.register("leaves");
    await using followed = await follow(optionsOf(consul));
    expect([...followed.records.keys()].sort()).toEqual(["test/leaves", "test/stays"]);
    const changes = followed.changes.length;

    await consul.kill();
    await expect.poll(() => followed.source.status().state).toBe("degraded");
    await expect.poll(() => followed.source.status().ageSeconds).toBeGreaterThan(0.5);
    expect(followed.source.status().lastError).toMatch(/cannot be reached.*ECONNREFUSED/);
    expect(followed.changes).toHaveLength(changes);
    const lookUps = ["stays", "nobody"].map((id) => followed.source.lookUp(id, undefined));

    await consul.restart();
    const [stays, nobody] = await Promise.all(lookUps);
    expect(stays).toMatchObject({ serviceId: "stays" });
    expect(nobody).toBeUndefined();
    await expect.poll(() => followed.source.status().state).toBe("ready");
    expect(followed.source.status()).not.toHaveProperty("lastError");
    await operator.deregister("leaves");
    await operator.register("comes");
    await operator.register("stays", { Meta: { "mcp-path": "/new" } });
    await followed.until(() => followed.instance("stays")?.url === "http://127.0.0.1:9000/new");
    await followed.until(() => followed.of("leaves").length === 0 && followed.of("comes").length === 1);
    // Through all of it nothing that was there all the time has been away.
    expect(followed.changes.flatMap(({ remove }) => remove)).toEqual(["test/leaves"]);
  });

  it("is waited for from the start: the start ends, and the first state is applied when it is there", async () => {
    const { consul, operator } = await ownConsul();
    await operator.register("patient");
    await consul.kill();
    await using followed = await follow(optionsOf(consul));
    expect(followed.source.status()).toMatchObject({
      state: "starting",
      lastError: expect.stringContaining("cannot be reached") as string,
    });
    expect(followed.changes).toEqual([]);
    await consul.restart();
    await followed.until(() => followed.of("patient").length === 1);
    expect(followed.source.status().state).toBe("ready");
    expect(followed.changes).toHaveLength(1);
  });

  it("ends a close at once, also while it is away", async () => {
    const { consul } = await ownConsul();
    const followed = await follow(optionsOf(consul));
    await consul.kill();
    await expect.poll(() => followed.source.status().state).toBe("degraded");
    await followed.source.close();
    expect(followed.source.status().state).toBe("closed");
  });

  it("may come back as another one that counts from the beginning: what that one does not know is gone", async () => {
    const [first, second] = await Promise.all([ownConsul(), ownConsul()]);
    await first.operator.register("both", { Port: 9001 });
    for (let n = 0; n < 40; n += 1) await first.operator.register("old", { Meta: { n: String(n) } });
    await second.operator.register("both", { Port: 9002 });
    await using relay = await relayTo(first.consul);
    await using followed = await follow(optionsOf(relay));
    expect(followed.instance("old")?.index).toBeGreaterThan(50);
    relay.lead(second.consul);
    relay.cut();
    await followed.until(() => followed.of("old").length === 0);
    await followed.until(() => followed.instance("both")?.url === "http://127.0.0.1:9002");
    await second.operator.register("new");
    await followed.until(() => followed.of("new").length === 1);
  });
});

describeWithOwnConsul("a node of Consul", () => {
  it("in maintenance takes all its instances out of calls, and brings them back", async () => {
    const { consul, operator } = await ownConsul();
    await operator.register("a");
    await operator.register("b");
    await using followed = await follow(optionsOf(consul));
    await operator.put("/agent/maintenance?enable=true&reason=new%20disk");
    await followed.until(() =>
      ["a", "b"].every((id) => followed.instance(id)?.down === "its node is in maintenance: new disk"),
    );
    await operator.put("/agent/maintenance?enable=false");
    await followed.until(() => ["a", "b"].every((id) => followed.instance(id)?.live === true));
  });

  it("that fails, moves to another address or joins is noticed, whatever its services' tags", async () => {
    const { consul, operator } = await ownConsul();
    const external = (node: string, address: string, status: string): Promise<unknown> =>
      operator.put("/catalog/register", {
        Node: node,
        Address: address,
        Service: { ID: "web", Service: "web", Tags: toolTags("web"), Port: 80 },
        Check: { CheckID: "serfHealth", Name: "Serf", Status: status },
      });
    await external("one", "10.0.0.1", "passing");
    await operator.register("b");
    await operator.register("c");
    await using followed = await follow(optionsOf(consul));
    expect(followed.instance("web")).toMatchObject({ url: "http://10.0.0.1:80", live: true });
    await external("one", "10.0.0.1", "critical");
    await followed.until(() => followed.instance("web")?.live === false);
    await external("two", "10.0.0.2", "passing");
    await followed.until(() => followed.of("web").length === 2);
    await external("one", "10.0.0.9", "passing");
    await followed.until(() =>
      followed.of("web").some(({ url, live }) => url === "http://10.0.0.9:80" && live),
    );
    await operator.put("/catalog/deregister", { Node: "two" });
    await followed.until(() => followed.of("web").length === 1);
  });
});

/** Registers as a service of other nodes, as an external monitor does. */
const registerAt = (operator: Operator, node: string, id: string, name: string): Promise<unknown> =>
  operator.put("/catalog/register", {
    Node: node,
    Address: "10.0.0.1",
    Service: { ID: id, Service: name, Tags: toolTags(name), Port: 80 },
  });

async function registerMany(operator: Operator, count: number, nodes: number): Promise<void> {
  const rest = Array.from({ length: count }, (_, n) => n).values();
  const worker = async (): Promise<void> => {
    for (const n of rest) await registerAt(operator, `node-${n % nodes}`, `service-${n}`, `service-${n}`);
  };
  await Promise.all(Array.from({ length: 16 }, worker));
}

describeWithOwnConsul("a great many services", () => {
  it.each([
    { nodes: 2, what: "at few nodes" },
    { nodes: 600, what: "at as many nodes" },
  ])("$what need no more than a few connections", async ({ nodes }) => {
    const { consul, operator } = await ownConsul();
    await registerMany(operator, 1000, nodes);
    await using relay = await relayTo(consul);
    await using followed = await follow(optionsOf(relay));
    expect(followed.records.size).toBe(1000);
    // Shown by no tag: everything is looked over.
    await registerAt(operator, "node-late", "service-7-b", "service-7");
    await followed.until(() => followed.of("service-7-b").length === 1);
    await operator.put("/catalog/deregister", { Node: "node-late", ServiceID: "service-7-b" });
    await followed.until(() => followed.of("service-7-b").length === 0);
    expect(relay.mostConnections).toBeGreaterThan(3);
    expect(relay.mostConnections).toBeLessThanOrEqual(32 + 3);
  });

  it("are all learnt from an agent that allows fewer connections than that (429)", async () => {
    const { consul, operator } = await ownConsul({ limits: { http_max_conns_per_client: 8 } });
    for (let n = 0; n < 60; n += 1) await registerAt(operator, "n", `service-${n}`, `service-${n}`);
    await using followed = await follow(optionsOf(consul));
    await followed.until(() => followed.records.size === 60);
    expect(followed.log.map(({ fields }) => String(fields.reason)).join()).toMatch(/429|cannot be reached/);
    await expect.poll(() => followed.source.status().state).toBe("ready");
  });
});
