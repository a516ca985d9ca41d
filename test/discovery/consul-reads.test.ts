import type { ServerResponse } from "node:http";
import { describe, expect, it } from "vitest";
import { openConsul } from "../../src/discovery/consul-client.ts";
import { problemsOf } from "../../src/discovery/problems.ts";
import { follow, optionsOf } from "./consul-agent.ts";
import { oddConsul, sendJson, type Oddity } from "./odd-consul.ts";

/** A server's error under the content type of everything else. */
const fails =
  (isOdd: (path: string) => boolean): Oddity =>
  ({ path }, answer) => {
    if (!path.startsWith("health/service/") || !isOdd(path)) return false;
    answer.writeHead(500, { "content-type": "application/json", "x-consul-index": "10" });
    answer.end("rpc error: no path to datacenter");
    return true;
  };
const speaksNonsense: Oddity = ({ path }, answer) => {
  if (!path.startsWith("health/service/")) return false;
  sendJson(answer, "nonsense", 10);
  return true;
};

const kinds = [
  {
    what: "with 500",
    odd: fails(() => true),
    said: /answered health\/service\/\w with 500: rpc error: no path/,
  },
  { what: "with nonsense", odd: speaksNonsense, said: /health\/service\/\w that is not Consul's/ },
];

describe("a Consul that answers for services", () => {
  it.each(kinds)("$what, for all of them, is said to be out of reach, and why", async ({ odd, said }) => {
    await using consul = await oddConsul();
    for (const name of ["a", "b"]) consul.services.set(name, 1001);
    await using followed = await follow(optionsOf(consul));
    expect(followed.source.status().state).toBe("ready");
    consul.oddity = odd;
    // An index that goes back has every service read.
    consul.index = 5;
    consul.wake();
    await expect
      .poll(() => followed.source.status())
      .toMatchObject({ state: "degraded", lastError: expect.stringMatching(said) as string });
    expect(followed.source.status().ageSeconds).toBeGreaterThan(0);
    expect(followed.changes).toHaveLength(1);
    consul.oddity = () => false;
    await expect.poll(() => followed.source.status(), { timeout: 10_000 }).toMatchObject({ state: "ready" });
    await expect.poll(() => followed.source.status().lastError, { timeout: 10_000 }).toBeUndefined();
  });

  it.each(kinds)(
    "$what, for all of them, from the start is said to be starting: nothing is taken for the first state",
    async ({ odd, said }) => {
      await using consul = await oddConsul();
      for (const name of ["a", "b"]) consul.services.set(name, 1001);
      consul.oddity = odd;
      await using followed = await follow(optionsOf(consul));
      expect(followed.source.status()).toMatchObject({
        state: "starting",
        lastError: expect.stringMatching(said) as string,
      });
      expect(followed.changes).toEqual([]);
      consul.oddity = () => false;
      await followed.until(() => followed.records.size === 2);
      expect(followed.changes).toHaveLength(1);
    },
  );

  it("with 500 for one of them is followed all the same, from the start on; that one is said, and learnt later", async () => {
    await using consul = await oddConsul();
    for (const name of ["odd", "a", "b"]) consul.services.set(name, 1001);
    consul.oddity = fails((path) => path.endsWith("/odd"));
    await using followed = await follow(optionsOf(consul));
    await followed.until(() => followed.of("a").length === 1 && followed.of("b").length === 1);
    const isSaid = expect.stringMatching(/health\/service\/odd with 500/) as string;
    await expect.poll(() => followed.source.status()).toMatchObject({ state: "ready", lastError: isSaid });
    consul.set("c", 1001);
    await followed.until(() => followed.of("c").length === 1);
    expect(followed.source.status()).toMatchObject({ state: "ready", lastError: isSaid });
    consul.oddity = () => false;
    await followed.until(() => followed.of("odd").length === 1);
    await expect.poll(() => followed.source.status().lastError).toBeUndefined();
  });

  it("under names that no path can hold reports each of them, asks for none, and is followed", async () => {
    await using consul = await oddConsul();
    const names = [".", "..", "a\nb"];
    for (const name of ["good", ...names]) consul.services.set(name, 1001);
    await using followed = await follow(optionsOf(consul));
    expect([...followed.records.keys()]).toEqual(["n/good"]);
    expect(followed.source.status()).toMatchObject({ state: "ready" });
    expect(followed.source.status()).not.toHaveProperty("lastError");
    consul.set("later", 1001);
    await followed.until(() => followed.of("later").length === 1);
    expect(problemsOf({ consul: followed.source })).toEqual(
      names.map((name) => ({
        source: "consul",
        about: name,
        names: [name],
        reason: `Consul answers for no service of the name ${JSON.stringify(name)}: register it under another`,
      })),
    );
    expect(followed.log.filter(({ message }) => message.includes("cannot be read"))).toHaveLength(3);
    expect(consul.asked.map(({ path }) => path).filter((path) => path.startsWith("health/service"))).toEqual([
      "health/service/good",
      "health/service/later",
    ]);
    consul.services.delete(".");
    consul.set("latest", 1001);
    await expect.poll(() => followed.source.report().map(({ key }) => key)).toEqual(["..", "a\nb"]);
  });
});

describe("answers of Consul that are read at once", () => {
  it("hold 128 MiB together at most: the largest is ended, and the others are read", async () => {
    await using consul = await oddConsul();
    const MiB = 1024 * 1024;
    const space = Buffer.alloc(MiB, " ");
    const open = new Map<string, ServerResponse>();
    consul.oddity = ({ path }, answer) => {
      if (!path.startsWith("health/service/")) return false;
      answer.writeHead(200, { "content-type": "application/json" }).write("[");
      open.set(path.replace("health/service/", ""), answer);
      return true;
    };
    const client = await openConsul(optionsOf(consul));
    const ends = new Map<string, string>();
    const read = async (name: string): Promise<void> => {
      await client.instances(name).then(
        () => ends.set(name, "read"),
        (error: unknown) => ends.set(name, String(error)),
      );
    };
    const sizes = { small: 30, middle: 45, large: 60 };
    const reads = Object.keys(sizes).map(read);
    await expect.poll(() => open.size).toBe(3);
    const send = async (name: string, count: number): Promise<void> => {
      const answer = open.get(name);
      if (answer === undefined) throw new Error(`${name} was not asked for`);
      const closed = new Promise((resolve) => answer.once("close", resolve));
      for (let n = 0; n < count && !answer.destroyed; n += 1)
        await Promise.race([closed, new Promise((resolve) => answer.write(space, resolve))]);
    };
    for (const [name, size] of Object.entries(sizes)) await send(name, size);
    await expect
      .poll(() => ends.get("large"))
      .toMatch(/the largest of 3 that hold more than 134217728 bytes/);
    for (const name of ["small", "middle"]) open.get(name)?.end("]");
    await Promise.all(reads);
    expect([ends.get("small"), ends.get("middle")]).toEqual(["read", "read"]);
    client.close();
  });
});
