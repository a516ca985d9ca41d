/** What happens in Consul, seen by MCP clients that hold an open subscription: real Consul, real clients, one runtime. */
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { Operator } from "../discovery/consul-agent.ts";
import { describeWithOwnConsul, startConsul, type Consul } from "../services/index.ts";
import type { Runtime } from "../support/runtime.ts";
import {
  Audience,
  makePlace,
  register as registerAt,
  shown,
  testNode,
  unique,
  type NodeService,
  type Place,
  type Registration,
} from "./cluster.ts";

const once = [1, 1];
const never = [0, 0];

describeWithOwnConsul("the tools of services that Consul knows", () => {
  let consul: Consul;
  let operator: Operator;
  let place: Place;
  let runtime: Runtime;
  let audience: Audience;
  const opened = new AsyncDisposableStack();

  beforeAll(async () => {
    consul = opened.use(await startConsul());
    operator = new Operator(consul);
    place = opened.use(await makePlace({ consul }));
    runtime = await place.start();
    audience = opened.use(await Audience.at([runtime.mcp], consul));
  }, 120_000);

  afterAll(() => opened.disposeAsync());

  /** For the duration of the test. */
  async function register(id: string, service: NodeService, registration: Registration): Promise<void> {
    await registerAt(operator, id, service, registration);
    // Most tests take it out themselves.
    onTestFinished(() => operator.deregister(id).catch(() => undefined));
  }

  const say = (id: string, status: "pass" | "fail"): Promise<unknown> =>
    operator.put(`/agent/check/${status}/check:${id}`);

  const available = async (name: string): Promise<unknown> => (await shown(runtime, name))?.available;

  const answerOf = async (name: string): Promise<any> => (await audience.call(name)).structuredContent;

  async function expectUnavailable(name: string): Promise<void> {
    const { isError, content } = await audience.call(name);
    expect(isError).toBe(true);
    expect(content[0].text).toMatch(/no instance .* is available at the moment; try again in \d+ s/i);
  }

  /** A contract in the key-value store, for instances whose meta names it. */
  async function contract(key: string, version: string, property: string): Promise<string> {
    const path = `onex/contracts/nodes/${key}`;
    const text = JSON.stringify({
      name: key,
      node_type: "ORCHESTRATOR",
      node_version: version,
      mcp: {
        expose: true,
        input_schema: { type: "object", properties: { [property]: { type: "string" } } },
      },
    });
    await operator.put(`/kv/${path}`, text);
    onTestFinished(() => operator.deleteKey(path));
    return path;
  }

  const propertiesOf = async (name: string): Promise<string[]> =>
    Object.keys(((await audience.tool(name))?.inputSchema as any)?.properties ?? {});

  it("a service that registers is one list_changed to every subscriber, who can call its tool; one that deregisters takes it away with another one", async () => {
    const tool = unique("orders");
    const service = await testNode("orders");
    const register1 = async (): Promise<void> => {
      await register(tool, service, { tool, Meta: { "mcp-path": "/run" } });
      await audience.untilServed(tool);
    };
    expect(await audience.changesDuring(register1)).toEqual(once);
    const { structuredContent } = await audience.call(tool, { id: 7 });
    expect(structuredContent).toEqual({ node: "orders", tool, path: "/run", arguments: { id: 7 } });

    const deregister = async (): Promise<void> => {
      await operator.deregister(tool);
      await audience.untilGone(tool);
    };
    expect(await audience.changesDuring(deregister)).toEqual(once);
    const [first] = audience.subscribers;
    await expect(first!.call(tool)).rejects.toThrow(/unknown tool|not found/i);
  });

  it("a check that fails keeps the tool in the list and tells nobody: calls answer that it is unavailable, and when to come back", async () => {
    const tool = unique("orders");
    const service = await testNode("orders");
    await register(tool, service, { tool });
    await audience.untilServed(tool);
    const fail = async (): Promise<void> => {
      await say(tool, "fail");
      await audience.until(async () => (await available(tool)) === false);
    };
    expect(await audience.changesDuring(fail)).toEqual(never);
    expect(await audience.names()).toContain(tool);
    await expectUnavailable(tool);
    expect(service.calls).toBe(0);

    const pass = async (): Promise<void> => {
      await say(tool, "pass");
      await audience.until(async () => (await available(tool)) === true);
    };
    expect(await audience.changesDuring(pass)).toEqual(never);
    expect(await answerOf(tool)).toMatchObject({ node: "orders" });
  });

  it("of two instances the one whose check fails gets no calls, and no call fails", async () => {
    const tool = unique("orders");
    const [a, b] = [await testNode("a"), await testNode("b")];
    await register(`${tool}-a`, a, { tool, Name: tool });
    await register(`${tool}-b`, b, { tool, Name: tool });
    await audience.until(async () => {
      await answerOf(tool);
      return a.calls > 0 && b.calls > 0;
    });
    await say(`${tool}-a`, "fail");
    await audience.until(async () => (await shown(runtime, tool)).endpoints.length === 1);
    const before = a.calls;
    for (let call = 0; call < 20; call += 1) expect(await answerOf(tool)).toMatchObject({ node: "b" });
    expect(a.calls).toBe(before);
  });

  it.each(["service", "node"] as const)(
    "maintenance of the %s keeps the tool in the list and tells nobody: calls answer that it is unavailable until it ends",
    async (what) => {
      const tool = unique("orders");
      const service = await testNode("orders");
      await register(tool, service, { tool });
      await audience.untilServed(tool);
      const path = what === "service" ? `/agent/service/maintenance/${tool}` : "/agent/maintenance";
      const maintain = (enable: boolean) => async (): Promise<void> => {
        await operator.put(`${path}?enable=${enable}&reason=new+disks`);
        await audience.until(async () => (await available(tool)) === !enable);
      };
      onTestFinished(async () => {
        await operator.put("/agent/maintenance?enable=false");
      });
      expect(await audience.changesDuring(maintain(true))).toEqual(never);
      expect(await audience.names()).toContain(tool);
      await expectUnavailable(tool);
      expect(await audience.changesDuring(maintain(false))).toEqual(never);
      expect(await answerOf(tool)).toMatchObject({ node: "orders" });
    },
  );

  it("a service whose tool is renamed has its new name and not its old one in the same, only list_changed", async () => {
    const [before, after] = [unique("orders"), unique("orders")];
    const service = await testNode("orders");
    await register(before, service, { tool: before });
    await audience.untilServed(before);
    const seen: string[][] = [];
    const rename = async (): Promise<void> => {
      await register(before, service, { tool: after });
      await audience.until(async () => {
        const both = (await audience.names()).filter((name) => name === before || name === after);
        seen.push(both);
        return both.length === 1 && both[0] === after;
      });
    };
    expect(await audience.changesDuring(rename)).toEqual(once);
    for (const names of seen) expect(names).toHaveLength(1);
    expect(await answerOf(after)).toMatchObject({ node: "orders", tool: after });
  });

  it("of two services that claim one name the first by name is served, whichever came first; the other takes over when it goes", async () => {
    const tool = unique("orders");
    const [early, late] = [`a-${tool}`, `b-${tool}`];
    const [a, b] = [await testNode("a"), await testNode("b")];
    await register(late, b, { tool });
    await audience.untilServed(tool);
    expect(await answerOf(tool)).toMatchObject({ node: "b" });
    await register(early, a, { tool });
    await audience.until(async () => (await answerOf(tool)).node === "a");
    for (let call = 0; call < 10; call += 1) expect(await answerOf(tool)).toMatchObject({ node: "a" });
    const explain = await fetch(new URL(`/mcp/tools/${tool}/explain`, runtime.mcp));
    expect(JSON.stringify(await explain.json())).toContain(late);

    const goes = async (): Promise<void> => {
      await operator.deregister(early);
      await audience.until(async () => (await answerOf(tool))?.node === "b");
    };
    expect(await audience.changesDuring(goes)).toEqual(once);
  });

  it("of two instances with different schemas the higher version defines the tool and alone is called; with one version the lowest id", async () => {
    const tool = unique("orders");
    const [a, b] = [await testNode("a"), await testNode("b")];
    const old = await contract(`${tool}.old`, "1.9.0", "old");
    const young = await contract(`${tool}.young`, "1.10.0", "young");
    await register(`${tool}-a`, a, { tool, Name: tool, Meta: { "mcp-contract": old } });
    await audience.until(async () => (await propertiesOf(tool))[0] === "old");
    const rollOut = async (): Promise<void> => {
      await register(`${tool}-b`, b, { tool, Name: tool, Meta: { "mcp-contract": young } });
      await audience.until(async () => (await propertiesOf(tool))[0] === "young");
    };
    expect(await audience.changesDuring(rollOut)).toEqual(once);
    const callsOfA = a.calls;
    for (let call = 0; call < 20; call += 1) expect(await answerOf(tool)).toMatchObject({ node: "b" });
    expect(a.calls).toBe(callsOfA);

    // The same version: the id decides.
    await contract(`${tool}.young`, "1.9.0", "young");
    await audience.until(async () => (await propertiesOf(tool))[0] === "old");
    for (let call = 0; call < 20; call += 1) expect(await answerOf(tool)).toMatchObject({ node: "a" });
  });

  it("two tools under one service name are two tools, each with its own instances", async () => {
    const name = unique("onex-orchestrator");
    const [first, second] = [unique("invoices"), unique("refunds")];
    const [a, b] = [await testNode("a"), await testNode("b")];
    const both = async (): Promise<void> => {
      await register(`${name}-1`, a, { tool: first, Name: name });
      await register(`${name}-2`, b, { tool: second, Name: name });
      await audience.untilServed(first);
      await audience.untilServed(second);
    };
    for (const count of await audience.changesDuring(both)) expect(count).toBeLessThanOrEqual(2);
    for (let call = 0; call < 10; call += 1) {
      expect(await answerOf(first)).toMatchObject({ node: "a", tool: first });
      expect(await answerOf(second)).toMatchObject({ node: "b", tool: second });
    }
    const oneGoes = async (): Promise<void> => {
      await operator.deregister(`${name}-1`);
      await audience.untilGone(first);
    };
    expect(await audience.changesDuring(oneGoes)).toEqual(once);
    expect(await answerOf(second)).toMatchObject({ node: "b" });
  });
});
