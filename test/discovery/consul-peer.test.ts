import { inspect } from "node:util";
import { describe, expect, it } from "vitest";
import { openConsul } from "../../src/discovery/consul-client.ts";
import { follow, Followed, optionsOf, toolTags } from "./consul-agent.ts";
import { oddConsul, sendJson, sendText, type Oddity } from "./odd-consul.ts";

const waits = ["catalog/services", "health/state/any", "kv/"];

describe("a Consul that misbehaves", () => {
  it("and begins its index anew is asked at once without waiting, and followed from there", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1001);
    consul.index = 5000;
    await using followed = await follow(optionsOf(consul));
    expect([...followed.records.keys()]).toEqual(["n/a"]);
    await expect.poll(() => consul.asked.filter(({ index }) => index === "5000").length).toBe(3);
    consul.index = 7;
    consul.services.set("b", 1001);
    consul.services.set("a", 1002);
    const before = consul.asked.length;
    consul.wake();
    await followed.until(
      () => followed.of("b").length === 1 && followed.instance("a")?.url === "http://10.0.0.1:1002",
    );
    await expect
      .poll(() =>
        consul.asked
          .slice(before)
          .filter(({ path, index }) => path === "catalog/services" && index !== "5000")
          .map(({ index }) => index),
      )
      .toEqual([null, "7"]);
  });

  it("and answers with index 0 is waited for at 1, and not asked in a circle", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1001);
    consul.oddity = ({ path }, answer) => {
      if (!waits.some((wait) => path.startsWith(wait))) return false;
      sendJson(
        answer,
        path.startsWith("kv/") ? undefined : path === "catalog/services" ? { consul: [], a: [] } : [],
        0,
      );
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    await expect
      .poll(() => consul.asked.some(({ path, index }) => path === "catalog/services" && index === "1"))
      .toBe(true);
    expect(followed.source.status().state).toBe("ready");
    expect(consul.asked.some(({ index }) => index === "0")).toBe(false);
    // Each answer comes at once; a circle without pauses would ask thousands of times.
    const before = consul.count("catalog/services");
    await expect.poll(() => consul.count("catalog/services")).toBeGreaterThan(before);
    expect(consul.count("catalog/services")).toBeLessThan(200);
  });

  it("and answers at once without news is asked ever more slowly", async () => {
    await using consul = await oddConsul();
    consul.oddity = ({ path }, answer) => {
      if (path !== "health/state/any") return false;
      sendJson(answer, [], 10);
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    expect(followed.source.status().state).toBe("ready");
    await expect.poll(() => consul.count("health/state/any")).toBeGreaterThan(4);
    expect(consul.count("health/state/any")).toBeLessThan(200);
  });

  const oddities: { what: string; odd: Oddity; said: RegExp }[] = [
    {
      what: "has no leader (500)",
      odd: (_asked, answer) => (sendText(answer, 500, "No cluster leader"), true),
      said: /500: No cluster leader/,
    },
    {
      what: "wants fewer requests (429)",
      odd: (_asked, answer) => (sendText(answer, 429, "rate limit exceeded"), true),
      said: /429: rate limit exceeded/,
    },
    {
      what: "sends JSON that is none",
      odd: (_asked, answer) => (
        answer.writeHead(200, { "content-type": "application/json" }).end('{"a": ['),
        true
      ),
      said: /not Consul's/,
    },
    {
      what: "sends a page",
      odd: (_asked, answer) => (
        answer.writeHead(200, { "content-type": "text/html" }).end("<h1>Welcome</h1>"),
        true
      ),
      said: /not Consul's: expected/,
    },
    {
      what: "sends other JSON",
      odd: (_asked, answer) => (sendJson(answer, { a: 1 }, 99), true),
      said: /not Consul's/,
    },
    {
      what: "cuts its answer off",
      odd: (_asked, answer) => {
        answer.writeHead(200, { "content-type": "application/json", "content-length": "1000" });
        answer.write('{"a": [');
        setImmediate(() => answer.destroy());
        return true;
      },
      said: /cut off/,
    },
    {
      what: "ends the connection",
      odd: (_asked, answer) => (answer.destroy(), true),
      said: /cannot be reached/,
    },
  ];

  it.each(oddities)(
    "and $what keeps the state that is known, and is right again afterwards",
    async ({ odd, said }) => {
      await using consul = await oddConsul();
      consul.services.set("a", 1001);
      await using followed = await follow(optionsOf(consul));
      expect(followed.changes).toHaveLength(1);
      consul.oddity = odd;
      consul.set("b", 1001);
      await expect
        .poll(() => followed.source.status())
        .toMatchObject({
          state: "degraded",
          lastError: expect.stringMatching(said) as string,
        });
      expect(followed.changes).toHaveLength(1);
      consul.services.delete("a");
      consul.oddity = () => false;
      await followed.until(() => followed.of("b").length === 1 && followed.of("a").length === 0);
      await expect.poll(() => followed.source.status().state).toBe("ready");
    },
  );

  it.each(oddities)(
    "and $what from the start is reported, and learnt as soon as it behaves",
    async ({ odd, said }) => {
      await using consul = await oddConsul();
      consul.services.set("a", 1001);
      consul.oddity = odd;
      await using followed = await follow(optionsOf(consul));
      expect(followed.source.status()).toMatchObject({
        state: "starting",
        lastError: expect.stringMatching(said) as string,
      });
      consul.oddity = () => false;
      await followed.until(() => followed.of("a").length === 1);
    },
  );

  it("for one service holds up none of the others", async () => {
    await using consul = await oddConsul();
    for (const name of ["a", "bad", "c"]) consul.services.set(name, 1001);
    consul.oddity = ({ path }, answer) => {
      if (path !== "health/service/bad") return false;
      sendJson(answer, "nonsense", 1);
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    await followed.until(() => followed.of("a").length === 1 && followed.of("c").length === 1);
    expect(followed.source.status()).toMatchObject({
      state: "ready",
      lastError: expect.stringContaining("health/service/bad") as string,
    });
    consul.oddity = () => false;
    await followed.until(() => followed.of("bad").length === 1);
    await expect.poll(() => followed.source.status().lastError).toBeUndefined();
  });

  it("and hides one contract that an instance names (403) refuses that instance alone, and only while it is there", async () => {
    await using consul = await oddConsul();
    for (const name of ["a", "greedy", "z"]) consul.services.set(name, 1001);
    consul.oddity = ({ path }, answer) => {
      if (path === "kv/secret/key") sendText(answer, 403, "Permission denied");
      else if (path === "health/service/greedy" && consul.services.has("greedy")) {
        const service = { ID: "g", Service: "greedy", Tags: toolTags("greedy"), Port: 1, ModifyIndex: 1 };
        const row = {
          Node: { Node: "n", Address: "10.0.0.1" },
          Service: { ...service, Meta: { "mcp-contract": "secret/key" } },
        };
        sendJson(answer, [row], consul.index);
      } else return false;
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    expect([...followed.records.keys()].sort()).toEqual(["n/a", "n/g", "n/z"]);
    expect(followed.instance("g")?.claim).toEqual({
      refused: expect.stringContaining("secret/key") as string,
    });
    expect(followed.source.status()).toMatchObject({
      state: "ready",
      lastError: expect.stringContaining("kv/secret/key") as string,
    });
    consul.set("a", 1002);
    await followed.until(() => followed.instance("a")?.url === "http://10.0.0.1:1002");
    consul.services.delete("greedy");
    consul.set("a", 1003);
    await followed.until(() => followed.of("g").length === 0);
    await expect.poll(() => followed.source.status().lastError).toBeUndefined();
  });

  it("is complained of without the token", async () => {
    await using consul = await oddConsul();
    const token = "b2b1b6c4-0000-4000-8000-000000000001";
    for (const { odd } of oddities) {
      consul.oddity = odd;
      const client = await openConsul({ ...optionsOf(consul), token });
      const error: unknown = await client.services().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(Error);
      expect(inspect(error, { depth: 12, showHidden: true })).not.toContain(token);
      client.close();
    }
  });

  it("and hides the contracts (403) serves its tools all the same, and that is said", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1001);
    consul.oddity = ({ path }, answer) => {
      if (!path.startsWith("kv/")) return false;
      sendText(answer, 403, "Permission denied: token lacks permission 'key:list'");
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    await followed.until(() => followed.of("a").length === 1);
    expect(followed.source.status()).toMatchObject({
      state: "ready",
      lastError: expect.stringMatching(/403: Permission denied.*check consul_token/) as string,
    });
  });

  it("and sends a page in place of its contracts keeps those that are known", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1001);
    const key = "onex/contracts/nodes/a";
    const contract = Buffer.from("name: n\nnode_type: ORCHESTRATOR\nmcp: {title: Known}").toString("base64");
    consul.oddity = ({ path, index }, answer) => {
      if (!path.startsWith("kv/") || index !== null) return false;
      sendJson(answer, [{ Key: key, Value: contract, ModifyIndex: 5 }], consul.index);
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    expect(followed.instance("a")?.definition.title).toBe("Known");
    consul.oddity = ({ path }, answer) => {
      if (!path.startsWith("kv/")) return false;
      answer.writeHead(200, { "content-type": "text/html", "x-consul-index": "99" }).end("<h1>Welcome</h1>");
      return true;
    };
    consul.set("b", 1001);
    await expect.poll(() => consul.count("kv/")).toBeGreaterThan(3);
    await followed.until(() => followed.of("b").length === 1);
    await expect.poll(() => followed.source.status().lastError).toMatch(/kv\/onex.*not Consul's/);
    expect(followed.instance("a")?.definition.title).toBe("Known");
  });

  const malformed = [
    "null",
    "[null]",
    "[1]",
    "[[]]",
    "{}",
    "[{}]",
    '"x"',
    '{"a":null}',
    '{"Services":{"a":null}}',
    '[{"Key":"onex/contracts/nodes/a","Value":1,"ModifyIndex":1}]',
    '[{"Key":"onex/contracts/nodes/a","Value":"%%%","ModifyIndex":1}]',
    '[{"Key":"onex/contracts/nodes/a","Value":"","ModifyIndex":"1","LockIndex":"1"}]',
    '[{"Node":null,"Service":null}]',
    '[{"Node":{"Node":"n"},"Service":{"ID":"a","Service":"a","ModifyIndex":1,"Meta":{"a":1},"Tags":[1]}}]',
    "",
  ];

  it.each(malformed)("and answers every request with %j fails nothing but the request", async (body) => {
    await using consul = await oddConsul();
    consul.oddity = (_asked, answer) => (
      answer.writeHead(200, { "content-type": "application/json", "x-consul-index": "9" }).end(body),
      true
    );
    const client = await openConsul(optionsOf(consul));
    const results = await Promise.allSettled([
      client.keys("onex/"),
      client.readKey("a"),
      client.services(),
      client.checks(),
      client.instances("a"),
      client.nodes(),
      client.nodeServices("n"),
      client.agentServices(),
      client.putKey("a", "b"),
      client.deleteKey("a"),
      client.registerService({ id: "a", name: "a" }),
      client.deregisterService("a"),
      client.passTtl("a"),
    ]);
    client.close();
    for (const result of results) {
      if (result.status === "rejected")
        expect(result.reason).toMatchObject({ message: expect.stringContaining("not Consul's") as string });
    }
    for (const result of results.slice(0, 2)) expect(result.status).toBe("rejected");
  });

  it("and sends [null] for its contracts is complained of, and serves its tools without them until it sends some", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1001);
    consul.contracts.set("a", "name: n\nnode_type: ORCHESTRATOR\nmcp: {title: Known}");
    consul.oddity = ({ path }, answer) => {
      if (!path.startsWith("kv/")) return false;
      sendJson(answer, [null], 99);
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    await followed.until(() => followed.of("a").length === 1);
    expect(followed.source.status()).toMatchObject({
      state: "ready",
      lastError: expect.stringMatching(/kv\/onex.*not Consul's at 0/) as string,
    });
    await expect.poll(() => consul.count("kv/")).toBeGreaterThan(2);
    expect(consul.count("kv/")).toBeLessThan(50);
    consul.oddity = () => false;
    await followed.until(() => followed.instance("a")?.definition.title === "Known");
    await expect.poll(() => followed.source.status().lastError).toBeUndefined();
  });

  it("and has more contracts than one answer may hold serves its tools without them, and that is said", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1001);
    const row = { Key: "onex/contracts/nodes/x", Value: "A".repeat(700_000), ModifyIndex: 5 };
    consul.oddity = ({ path }, answer) => {
      if (!path.startsWith("kv/")) return false;
      sendJson(answer, Array<typeof row>(100).fill(row), 99);
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    await followed.until(() => followed.of("a").length === 1);
    expect(followed.source.status()).toMatchObject({
      state: "ready",
      lastError: expect.stringMatching(/kv\/onex.*larger than 67108864 bytes/) as string,
    });
    consul.set("b", 1001);
    await followed.until(() => followed.of("b").length === 1);
  });

  it("and never ends an answer is left after 64 MiB, and holds up none of the others", async () => {
    await using consul = await oddConsul();
    for (const name of ["a", "endless", "z"]) consul.services.set(name, 1001);
    const chunk = Buffer.alloc(1024 * 1024, " ");
    const left: number[] = [];
    consul.oddity = ({ path }, answer) => {
      if (path !== "health/service/endless") return false;
      answer.writeHead(200, { "content-type": "application/json" });
      let sent = 0;
      // Not without an end itself, so that it fails where nobody hangs up.
      const more = (): void => {
        while (sent < 200) {
          sent += 1;
          if (!answer.write(chunk)) return;
        }
        answer.end();
      };
      answer.on("drain", more).on("close", () => left.push(sent));
      more();
      return true;
    };
    await using followed = await follow(optionsOf(consul));
    await followed.until(() => followed.of("a").length === 1 && followed.of("z").length === 1);
    await expect.poll(() => left.length, { timeout: 10_000 }).toBeGreaterThan(0);
    expect(left[0]).toBeLessThan(150);
    await expect
      .poll(() => followed.source.status())
      .toMatchObject({
        state: "ready",
        lastError: expect.stringMatching(/endless.*not Consul's: it is larger than 67108864 bytes/) as string,
      });
    consul.oddity = () => false;
    await followed.until(() => followed.of("endless").length === 1);
  });

  it.each([
    { what: "without an index", index: undefined },
    { what: "with index 0", index: 0 },
  ])(
    "and answers at once with other contracts, $what, is asked ever more slowly, and that is said",
    async ({ index }) => {
      await using consul = await oddConsul();
      consul.services.set("a", 1001);
      let count = 0;
      consul.oddity = ({ path }, answer) => {
        if (!path.startsWith("kv/")) return false;
        count += 1;
        const text = `name: n\nnode_type: ORCHESTRATOR\nmcp: {title: "${count}"}`;
        const row = {
          Key: "onex/contracts/nodes/a",
          Value: Buffer.from(text).toString("base64"),
          ModifyIndex: count,
        };
        answer.writeHead(200, {
          "content-type": "application/json",
          ...(index !== undefined && { "x-consul-index": String(index) }),
        });
        answer.end(JSON.stringify([row]));
        return true;
      };
      await using followed = await follow(optionsOf(consul));
      const start = count;
      await followed.until(() => Number(followed.instance("a")?.definition.title) > start + 4);
      expect(count).toBeLessThan(50);
      expect(followed.source.status().state).toBe("ready");
      expect(followed.source.status().lastError).toMatch(/contracts without X-Consul-Index/);
      consul.oddity = () => false;
      await expect.poll(() => followed.source.status().lastError, { timeout: 10_000 }).toBeUndefined();
    },
  );

  it("says once that a contract in use is broken, and once that it is mended; others are not read", async () => {
    await using consul = await oddConsul();
    consul.services.set("a", 1001);
    consul.contracts.set("a", "mcp: {title: Broken");
    consul.contracts.set("unused", "[".repeat(500_000));
    await using followed = await follow(optionsOf(consul));
    const said = (): unknown[] =>
      followed.log
        .filter(({ message }) => message.startsWith("A contract in Consul"))
        .map(({ level, fields }) => [level, fields.contract]);
    const key = "onex/contracts/nodes/a";
    await followed.until(() => followed.of("a").length === 1);
    expect(said()).toEqual([["warn", key]]);
    expect(followed.source.report()).toMatchObject([
      { key: "n/a" },
      { key, reason: expect.any(String) as string },
    ]);
    consul.set("a", 1002);
    await followed.until(() => followed.instance("a")?.url === "http://10.0.0.1:1002");
    expect(said()).toHaveLength(1);
    consul.contracts.set("a", "name: n\nnode_type: ORCHESTRATOR\nmcp: {title: Mended}");
    consul.set("b", 1001);
    await followed.until(() => followed.instance("a")?.definition.title === "Mended");
    expect(said()).toEqual([
      ["warn", key],
      ["info", key],
    ]);
  });

  it("and never answers does not hold up a close", async () => {
    await using consul = await oddConsul();
    consul.oddity = () => true;
    const client = await openConsul(optionsOf(consul));
    const reading = client.readKey("x");
    await expect.poll(() => consul.asked.length).toBe(1);
    client.close();
    await expect(reading).rejects.toThrow("closed");

    const followed = new Followed(optionsOf(consul));
    const starting = followed.start();
    await expect.poll(() => consul.asked.length).toBe(4);
    await followed.source.close();
    await starting;
    expect(followed.source.status().state).toBe("closed");
  });

  it("shows a query that waits for five minutes, give or take", async () => {
    await using consul = await oddConsul();
    await using followed = await follow(optionsOf(consul));
    await expect.poll(() => consul.asked.filter(({ wait }) => wait !== null).length).toBe(3);
    const seconds = consul.asked.flatMap(({ wait }) =>
      wait === null ? [] : [Number(wait.replace("s", ""))],
    );
    for (const each of seconds) {
      expect(each).toBeGreaterThan(260);
      expect(each).toBeLessThanOrEqual(300);
    }
    expect(followed.source.status().state).toBe("ready");
  });
});
