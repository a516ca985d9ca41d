import { describe, expect, test, vi } from "vitest";
import { Contracts, startedHost } from "./support.ts";

describe("a message that comes again", () => {
  /** A handler that counts, and a host with it. */
  async function counting(contracts: Contracts) {
    const state = { calls: 0, fail: false };
    await contracts.handler("count", {
      execute: () => {
        state.calls += 1;
        if (state.fail) throw new Error("not now");
        return { calls: state.calls };
      },
    });
    const host = await startedHost(contracts);
    return {
      state,
      host,
      handle: async (value: object) => await host.host.handle({ operation: "count.up", ...value }),
    };
  }

  test("gets the first answer's payload and ids with status duplicate", async () => {
    await using contracts = await Contracts.make();
    const { host, handle } = await counting(contracts);
    await using _host = host;
    const first = await handle({ message_id: "m-1" });
    const second = await handle({ message_id: "m-1" });
    expect(first).toMatchObject({ status: "success", payload: { calls: 1 } });
    expect(second).toEqual({
      ...first,
      status: "duplicate",
      processing_time_ms: expect.any(Number),
      timestamp: expect.any(String),
    });
  });

  test("gets its own correlation_id and envelope_id where the sender gave them", async () => {
    await using contracts = await Contracts.make();
    const { host, handle } = await counting(contracts);
    await using _host = host;
    await handle({ message_id: "m-1", correlation_id: "c-1", envelope_id: "e-1" });
    expect(await handle({ message_id: "m-1", correlation_id: "c-2", envelope_id: "e-2" })).toMatchObject({
      status: "duplicate",
      correlation_id: "c-2",
      envelope_id: "e-2",
      message_id: "m-1",
      payload: { calls: 1 },
    });
  });

  test("is told by headers.message_id, else message_id, else envelope_id", async () => {
    await using contracts = await Contracts.make();
    const { host, handle } = await counting(contracts);
    await using _host = host;
    const statusOf = async (value: object) => (await handle(value)).status;
    const ids = { headers: { message_id: "h" }, message_id: "m", envelope_id: "e" };
    expect(await statusOf(ids)).toBe("success");
    expect(await statusOf({ headers: { message_id: "h" }, message_id: "m2", envelope_id: "e2" })).toBe(
      "duplicate",
    );
    expect(await statusOf({ ...ids, headers: { message_id: "h2" } })).toBe("success");
    expect(await statusOf({ message_id: "m", envelope_id: "e" })).toBe("success");
    expect(await statusOf({ message_id: "m", envelope_id: "e3" })).toBe("duplicate");
    expect(await statusOf({ envelope_id: "e" })).toBe("success");
    expect(await statusOf({ envelope_id: "e" })).toBe("duplicate");
  });

  test("is told by the bus message's own message_id where the envelope has none in its headers", async () => {
    await using contracts = await Contracts.make();
    const { host, state } = await counting(contracts);
    await using _host = host;
    for (let time = 0; time < 2; time += 1)
      await host.send({ operation: "count.up" }, "k", { message_id: "b" });
    for (const other of ["b1", "b2"])
      await host.send({ operation: "count.up", headers: { message_id: "h" } }, "k", { message_id: other });
    await vi.waitFor(() =>
      expect(host.answers().map((answer) => answer.status)).toEqual([
        "success",
        "duplicate",
        "success",
        "duplicate",
      ]),
    );
    expect(state.calls).toBe(2);
  });

  test("is never told by correlation_id, nor where the sender gave no id at all", async () => {
    await using contracts = await Contracts.make();
    const { host, handle, state } = await counting(contracts);
    await using _host = host;
    await handle({ correlation_id: "c" });
    await handle({ correlation_id: "c" });
    await handle({});
    await handle({});
    expect(state.calls).toBe(4);
  });

  test("is another message where the operation is another", async () => {
    await using contracts = await Contracts.make();
    const { host, handle, state } = await counting(contracts);
    await using _host = host;
    await handle({ message_id: "m" });
    expect((await handle({ message_id: "m", operation: "count.down" })).status).toBe("success");
    expect(state.calls).toBe(2);
  });

  test("is tried again where it had failed", async () => {
    await using contracts = await Contracts.make();
    const { host, handle, state } = await counting(contracts);
    await using _host = host;
    state.fail = true;
    expect((await handle({ message_id: "m" })).status).toBe("error");
    state.fail = false;
    expect(await handle({ message_id: "m" })).toMatchObject({ status: "success", payload: { calls: 2 } });
  });

  test("waits for the one under way, and runs itself where that one fails", async () => {
    await using contracts = await Contracts.make();
    const gates = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
    let calls = 0;
    await contracts.handler("slow", {
      execute: async () => {
        calls += 1;
        return await gates[calls - 1]!.promise;
      },
    });
    await using host = await startedHost(contracts);
    const send = async () => await host.host.handle({ operation: "slow.x", message_id: "m" });
    const answers = Promise.all([send(), send(), send()]);
    await vi.waitFor(() => expect(calls).toBe(1));
    gates[0]!.reject(new Error("first fails"));
    await vi.waitFor(() => expect(calls).toBe(2));
    gates[1]!.resolve("done");
    expect((await answers).map((answer) => answer.status)).toEqual(["error", "success", "duplicate"]);
    expect(calls).toBe(2);
  });
});
