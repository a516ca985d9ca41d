import { describe, expect, it, onTestFinished } from "vitest";
import { describeWithOwnConsul, startConsul } from "../services/index.ts";
import { follow, Operator, optionsOf } from "./consul-agent.ts";
import { type OddConsul, oddConsul, sendJson, sendText, type Oddity } from "./odd-consul.ts";

const contract = (title: string): string => `name: n\nnode_type: ORCHESTRATOR\nmcp: {title: ${title}}`;

/** Answers what is no consistent question as a Consul does that is still reading its log: without instances and keys. */
const behind: Oddity = ({ path, isConsistent, index }, answer) => {
  if (isConsistent) return false;
  if (path.startsWith("health/service/")) sendJson(answer, [], 3);
  else if (path.startsWith("kv/") && index === null) sendJson(answer, undefined, 3);
  else return false;
  return true;
};

const consistentReads = (consul: OddConsul, path: string): number =>
  consul.asked.filter((one) => one.path === path && one.isConsistent).length;

describe("a Consul that is behind", () => {
  it("takes no instance away: what is missing is asked for consistently, and only that answer counts", async () => {
    await using consul = await oddConsul();
    for (const name of ["a", "b"]) consul.services.set(name, 1001);
    await using followed = await follow(optionsOf(consul));
    expect(consul.count("health/service/")).toBe(2);
    expect(consistentReads(consul, "health/service/a")).toBe(0);

    consul.oddity = behind;
    consul.services.delete("b");
    consul.set("a", 1002);
    await followed.until(() => followed.instance("a")?.url === "http://10.0.0.1:1002");
    await followed.until(() => followed.of("b").length === 0);
    expect(followed.changes.flatMap(({ remove }) => remove)).toEqual(["n/b"]);
  });

  it("and does not answer consistently yet takes nothing away until it does", async () => {
    await using consul = await oddConsul();
    for (const name of ["a", "b"]) consul.services.set(name, 1001);
    await using followed = await follow(optionsOf(consul));
    consul.oddity = (asked, answer) => {
      if (!asked.path.startsWith("health/service/") || !asked.isConsistent) return behind(asked, answer);
      sendText(answer, 500, "Not ready to serve consistent reads");
      return true;
    };
    consul.services.delete("b");
    consul.set("c", 1001);
    await expect
      .poll(() => followed.source.status())
      .toMatchObject({ state: "degraded", lastError: expect.stringContaining("Not ready") as string });
    expect(followed.changes).toHaveLength(1);
    consul.oddity = () => false;
    await followed.until(() => followed.of("b").length === 0 && followed.of("c").length === 1);
    expect(followed.changes.flatMap(({ remove }) => remove)).toEqual(["n/b"]);
  });

  it("shows no instance as it was before", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1005);
    await using followed = await follow(optionsOf(consul));
    consul.oddity = ({ path, isConsistent }, answer) => {
      if (path !== "health/service/a" || isConsistent) return false;
      const service = { ID: "a", Service: "a", Tags: ["mcp-enabled"], Port: 1, ModifyIndex: 900 };
      sendJson(answer, [{ Node: { Node: "n", ModifyIndex: 1 }, Service: service, Checks: [] }], 3);
      return true;
    };
    const before = consistentReads(consul, "health/service/a");
    // An index that goes back has every service read.
    consul.index = 5;
    consul.wake();
    await expect.poll(() => consistentReads(consul, "health/service/a")).toBeGreaterThan(before);
    consul.set("b", 1001);
    await followed.until(() => followed.of("b").length === 1);
    expect(followed.instance("a")?.url).toBe("http://10.0.0.1:1005");
    expect(followed.changes.flatMap(({ put }) => put.map(({ key }) => key))).toEqual(["n/a", "n/b"]);
  });

  it("at the start hides nothing: the first answers are asked for consistently", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1001);
    consul.contracts.set("a", contract("Known"));
    consul.oddity = (asked, answer) => {
      if (asked.path !== "catalog/services" || asked.isConsistent || asked.index !== null)
        return behind(asked, answer);
      sendJson(answer, { consul: [] }, 3);
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    expect(followed.changes.map(({ put }) => put.map(({ key }) => key))).toEqual([["n/a"]]);
    expect(followed.instance("a")?.definition.title).toBe("Known");
  });

  it("takes no contract away, one below the common prefix or another", async () => {
    await using consul = await oddConsul();
    for (const name of ["a", "named"]) consul.services.set(name, 1001);
    consul.contracts.set("a", contract("Known"));
    const named: Oddity = ({ path, isConsistent }, answer) => {
      if (path === "kv/other/key") {
        const value = Buffer.from(contract("Named")).toString("base64");
        if (isBehind && !isConsistent) sendJson(answer, undefined, 3);
        else sendJson(answer, [{ Key: "other/key", Value: value, ModifyIndex: 5 }], consul.index);
      } else if (path === "health/service/named") {
        const tags = ["mcp-enabled", "node-type:orchestrator", "mcp-tool:named"];
        const service = { ID: "named", Service: "named", Tags: tags, Port: 1, ModifyIndex: 1001 };
        const row = { ...service, Meta: { "mcp-contract": "other/key" } };
        sendJson(answer, [{ Node: { Node: "n", Address: "10.0.0.1" }, Service: row }], consul.index);
      } else if (isBehind && path.startsWith("kv/onex") && !isConsistent) sendJson(answer, undefined, 3);
      else return false;
      return true;
    };
    let isBehind = false;
    consul.oddity = named;
    await using followed = await follow(optionsOf(consul));
    const titles = (): unknown[] => ["a", "named"].map((id) => followed.instance(id)?.definition.title);
    expect(titles()).toEqual(["Known", "Named"]);

    isBehind = true;
    const keys = ["kv/onex/contracts/nodes/", "kv/other/key"];
    const before = keys.map((key) => consistentReads(consul, key));
    consul.set("late", 1001);
    await followed.until(() => followed.of("late").length === 1);
    for (const [at, key] of keys.entries())
      await expect
        .poll(() => consistentReads(consul, key), { timeout: 10_000 })
        .toBeGreaterThan(before[at] ?? 0);
    expect(titles()).toEqual(["Known", "Named"]);
    expect(followed.changes.flatMap(({ put }) => put.map(({ key }) => key))).toEqual([
      "n/a",
      "n/named",
      "n/late",
    ]);
    consul.contracts.delete("a");
    consul.set("later", 1001);
    await followed.until(() => followed.instance("a")?.definition.title === undefined);
  });

  it("makes nobody unknown: an instance that is looked up is looked for consistently before it is given up", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1001);
    await using followed = await follow(optionsOf(consul));
    consul.services.set("b", 1001);
    consul.oddity = (asked, answer) => {
      if (!asked.path.startsWith("catalog/node/") || asked.isConsistent) return behind(asked, answer);
      sendJson(answer, { Services: {} }, 3);
      return true;
    };
    expect(await followed.source.lookUp("b", "b")).toMatchObject({ serviceId: "b" });
    expect(await followed.source.lookUp("nobody", "b")).toBeUndefined();
  });
});

describeWithOwnConsul("a Consul with a long log", () => {
  it("loses nothing by being killed and begun again", { timeout: 60_000 }, async () => {
    const consul = await startConsul();
    onTestFinished(() => consul.stop());
    const operator = new Operator(consul);
    const write = (n: number): Promise<unknown> => operator.put(`/kv/junk/${n}`, "x".repeat(2000));
    for (let n = 0; n < 8000; n += 50) await Promise.all(Array.from({ length: 50 }, (_, at) => write(at)));
    await operator.register("a");
    await using followed = await follow(optionsOf(consul));
    expect(followed.of("a")).toHaveLength(1);
    for (let turn = 0; turn < 3; turn += 1) {
      await consul.kill();
      await expect.poll(() => followed.source.status().state).toBe("degraded");
      await consul.restart();
      await expect.poll(() => followed.source.status().state, { timeout: 10_000 }).toBe("ready");
      await operator.register(`after-${turn}`);
      await followed.until(() => followed.of(`after-${turn}`).length === 1);
    }
    expect(followed.changes.flatMap(({ remove }) => remove)).toEqual([]);
  });
});
