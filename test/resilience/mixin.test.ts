import { describe, expect, it } from "vitest";
import {
  CancelledError,
  InfraConnectionError,
  InfraTimeoutError,
  InfraUnavailableError,
  ProtocolConfigurationError,
} from "../../src/core/errors.ts";
import { withCircuitBreaker, type BreakerOptions } from "../../src/resilience/circuit-breaker.ts";
import { ManualClock } from "./clock.ts";

class Client {
  static readonly kind = "client";
  readonly host: string;
  readonly port: number;
  constructor(host: string, port: number) {
    this.host = host;
    this.port = port;
  }
  address(): string {
    return `${this.host}:${this.port}`;
  }
}

function guarded(breaker: BreakerOptions = { failureThreshold: 2, resetSeconds: 10 }) {
  const clock = new ManualClock();
  class GuardedClient extends withCircuitBreaker(Client, { breaker, clock }) {
    readonly label: string;
    constructor(host: string, port: number, label: string) {
      super(host, port);
      this.label = label;
    }
    override address(): string {
      return `${this.label}=${super.address()}`;
    }
  }
  return { clock, GuardedClient, client: new GuardedClient("localhost", 80, "web") };
}

const failing = (error: Error) => (): Promise<never> => Promise.reject(error);
const refused = failing(new InfraConnectionError("refused", { facts: { transport: "http" } }));

describe("a class with circuit breakers", () => {
  it("keeps the constructor arguments, methods and statics of its base", () => {
    const { GuardedClient, client } = guarded();
    expect(client.address()).toBe("web=localhost:80");
    expect(client).toBeInstanceOf(Client);
    expect(GuardedClient.kind).toBe("client");
    const Guarded = withCircuitBreaker(Client);
    // @ts-expect-error -- the base's constructor wants a number
    expect(new Guarded("localhost", "80").address()).toBe("localhost:80");
  });

  it("can have Object as its base", async () => {
    class Backend extends withCircuitBreaker(Object) {}
    await expect(new Backend().withCircuit("billing", async () => 1)).resolves.toBe(1);
  });

  it("refuses an option out of its range when the class is made", () => {
    expect(() => withCircuitBreaker(Client, { breaker: { resetSeconds: -1 } })).toThrow(
      ProtocolConfigurationError,
    );
  });

  it("says whether a call of a target would be admitted, and changes nothing by it", async () => {
    const { client, clock } = guarded({ failureThreshold: 1, resetSeconds: 10, halfOpenRequests: 1 });
    expect(client.circuitAdmits("a")).toBe(true);
    expect(client.circuitStates().size).toBe(0);
    await expect(client.withCircuit("a", refused)).rejects.toBeInstanceOf(InfraConnectionError);
    expect(client.circuitAdmits("a")).toBe(false);
    clock.advance(10);
    expect([client.circuitAdmits("a"), client.circuitAdmits("a")]).toEqual([true, true]);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const trial = client.withCircuit("a", () => promise);
    expect(client.circuitAdmits("a")).toBe(false);
    resolve(undefined);
    await trial;
    expect(client.circuitAdmits("a")).toBe(true);
  });

  it("hands the result and the very error of the work to the caller", async () => {
    const { client } = guarded();
    await expect(client.withCircuit("a", async () => "done")).resolves.toBe("done");
    const error = new Error("broken");
    await expect(client.withCircuit("a", failing(error))).rejects.toBe(error);
  });

  it("stops calling a target that keeps failing, and tries it again after the reset time", async () => {
    const { client, clock } = guarded();
    let calls = 0;
    const work = async (): Promise<never> => {
      calls += 1;
      throw new InfraConnectionError("refused");
    };
    await expect(client.withCircuit("a", work)).rejects.toBeInstanceOf(InfraConnectionError);
    await expect(client.withCircuit("a", work)).rejects.toBeInstanceOf(InfraConnectionError);
    await expect(client.withCircuit("a", work)).rejects.toMatchObject({
      name: "InfraUnavailableError",
      retryable: true,
      facts: { target: "a", retry_after_seconds: 10, circuit_state: "open" },
    });
    expect(calls).toBe(2);
    clock.advance(10);
    await client.withCircuit("a", async () => 1);
    await client.withCircuit("a", async () => 1);
    expect(client.circuitState("a")).toMatchObject({ kind: "closed", failures: 0 });
  });

  it("rejects a trial too many without waiting for the running ones", async () => {
    const { client, clock } = guarded({ failureThreshold: 1, resetSeconds: 10, halfOpenRequests: 1 });
    await expect(client.withCircuit("a", refused)).rejects.toThrow();
    clock.advance(10);
    const answer = Promise.withResolvers<string>();
    const trial = client.withCircuit("a", () => answer.promise);
    await expect(client.withCircuit("a", async () => "second")).rejects.toBeInstanceOf(InfraUnavailableError);
    answer.resolve("first");
    await expect(trial).resolves.toBe("first");
    expect(client.circuitState("a")).toMatchObject({ kind: "half-open", trials: 0, successes: 1 });
  });

  it.each<[string, Error]>([
    ["a refused connection", new InfraConnectionError("refused")],
    ["a timeout", new InfraTimeoutError("late", { facts: { timeout_seconds: 1 } })],
    ["a foreign error", new TypeError("fetch failed")],
    ["a foreign timeout", new DOMException("late", "TimeoutError")],
    ["a thrown value that is no error", "broken" as unknown as Error],
  ])("counts %s", async (_what, error) => {
    const { client } = guarded();
    await expect(client.withCircuit("a", failing(error))).rejects.toBe(error);
    expect(client.circuitState("a")).toMatchObject({ kind: "closed", failures: 1 });
  });

  it("counts work that throws before it returns a promise", async () => {
    const { client } = guarded();
    const work = (): Promise<never> => {
      throw new Error("at once");
    };
    await expect(client.withCircuit("a", work)).rejects.toThrow("at once");
    expect(client.circuitState("a")).toMatchObject({ kind: "closed", failures: 1 });
  });

  it.each<[string, Error]>([
    ["a cancelled call", new CancelledError()],
    ["an abort of the caller", new DOMException("This operation was aborted", "AbortError")],
    ["bad arguments", new ProtocolConfigurationError("bad")],
    ["the rejection of another breaker", new InfraUnavailableError("open")],
  ])("does not count %s, as failure or as success, and frees its trial", async (_what, error) => {
    const { client, clock } = guarded({ failureThreshold: 2, resetSeconds: 10, halfOpenRequests: 1 });
    await expect(client.withCircuit("a", refused)).rejects.toThrow();
    await expect(client.withCircuit("a", failing(error))).rejects.toBe(error);
    expect(client.circuitState("a")).toMatchObject({ kind: "closed", failures: 1 });
    await expect(client.withCircuit("a", refused)).rejects.toThrow();
    clock.advance(10);
    await expect(client.withCircuit("a", failing(error))).rejects.toBe(error);
    expect(client.circuitState("a")).toMatchObject({ kind: "half-open", trials: 0, successes: 0 });
  });

  it("has a breaker of its own for each name, and each object has its own", async () => {
    const { GuardedClient, client } = guarded({ failureThreshold: 1 });
    await expect(client.withCircuit("a", refused)).rejects.toThrow("refused");
    await expect(client.withCircuit("b", async () => 1)).resolves.toBe(1);
    await expect(new GuardedClient("localhost", 81, "other").withCircuit("a", async () => 1)).resolves.toBe(
      1,
    );
    expect([...client.circuitStates()].map(([name, state]) => [name, state.kind])).toEqual([
      ["a", "open"],
      ["b", "closed"],
    ]);
  });

  it("shows and resets breakers by name, and says whether there was one", async () => {
    const { client } = guarded({ failureThreshold: 1 });
    expect(client.circuitState("a")).toBeUndefined();
    expect(client.resetCircuit("a")).toBe(false);
    expect(client.circuitStates().size).toBe(0);
    await expect(client.withCircuit("a", refused)).rejects.toThrow();
    expect(client.circuitState("a")?.kind).toBe("open");
    expect(client.resetCircuit("a")).toBe(true);
    await expect(client.withCircuit("a", async () => 1)).resolves.toBe(1);
  });

  it("forgets a removed breaker; a call still running under it does not touch its successor", async () => {
    const { client } = guarded({ failureThreshold: 1 });
    const answer = Promise.withResolvers<never>();
    const running = client.withCircuit("a", () => answer.promise);
    expect(client.removeCircuit("a")).toBe(true);
    expect(client.removeCircuit("a")).toBe(false);
    await client.withCircuit("a", async () => 1);
    answer.reject(new InfraConnectionError("refused"));
    await expect(running).rejects.toThrow("refused");
    expect(client.circuitState("a")).toMatchObject({ kind: "closed", failures: 0 });
  });
});
