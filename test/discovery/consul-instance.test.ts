import { describe, expect, it } from "vitest";
import { instancesAnswer, type ConsulInstance } from "../../src/discovery/consul-answers.ts";
import { contractKeyOf, instanceRecord, isTagged } from "../../src/discovery/consul-instance.ts";
import { ConsulState } from "../../src/discovery/consul-state.ts";
import { toolTags } from "./consul-agent.ts";

const absent = { state: "absent" } as const;

function row(
  service: Readonly<Record<string, unknown>> = {},
  checks: readonly object[] = [],
  node = "n1",
): ConsulInstance {
  const [parsed] = instancesAnswer.parse([
    {
      Node: { Node: node, Address: "10.0.0.7", ModifyIndex: 3 },
      Service: {
        ID: "orders-1",
        Service: "orders",
        Tags: toolTags("orders"),
        Address: "",
        Port: 8080,
        Meta: null,
        Weights: { Passing: 1, Warning: 1 },
        ModifyIndex: 12,
        ...service,
      },
      Checks: checks.map((check) => ({
        Node: node,
        CheckID: "c",
        Name: "c",
        Status: "passing",
        ServiceID: "orders-1",
        ...check,
      })),
    },
  ]);
  return parsed!;
}

const instance = (...values: Parameters<typeof row>) => instanceRecord(row(...values), absent).instance;

describe("an instance of a service", () => {
  it("becomes a statement of its own, keyed by node and id", () => {
    expect(instanceRecord(row(), absent)).toEqual({
      key: "n1/orders-1",
      instance: {
        source: "consul",
        serviceId: "orders-1",
        serviceName: "orders",
        claim: { toolName: "orders" },
        definition: { tags: toolTags("orders") },
        url: "http://10.0.0.7:8080",
        weight: 1,
        live: true,
        index: 12,
      },
    });
  });

  it.each([
    ["its own address before its node's", { Address: "10.1.1.1" }, "http://10.1.1.1:8080"],
    ["its node's address where it has none", {}, "http://10.0.0.7:8080"],
    ["a name", { Address: "orders.service.consul" }, "http://orders.service.consul:8080"],
    ["IPv6 in brackets", { Address: "fd00::7" }, "http://[fd00::7]:8080"],
    ["IPv6 that has its brackets already", { Address: "[fd00::7]" }, "http://[fd00::7]:8080"],
    ["a path, without a slash at its end", { Meta: { "mcp-path": "/run/" } }, "http://10.0.0.7:8080/run"],
    ["a path without its first slash", { Meta: { "mcp-path": "run" } }, "http://10.0.0.7:8080/run"],
    ["the root", { Meta: { "mcp-path": "/" } }, "http://10.0.0.7:8080"],
    ["https", { Meta: { "mcp-scheme": "https" } }, "https://10.0.0.7:8080"],
  ])("is called at %s", (_title, service, url) => {
    expect(instance(service)).toMatchObject({ url, live: true });
  });

  it.each([
    ["no port", { Port: 0 }, /port is 0/],
    ["a port that is none", { Port: 70000 }, /port is 70000/],
    [
      "a scheme that is not HTTP",
      { Meta: { "mcp-scheme": "ftp" } },
      /mcp-scheme is "ftp", expected http or https/,
    ],
    ["an address with a path in it", { Address: "host/x" }, /address is "host\/x"/],
    ["an address with a user in it", { Address: "me@host" }, /address is "me@host"/],
    ["an address of one interface", { Address: "fe80::1%eth0" }, /address/],
    ["a path with a query", { Meta: { "mcp-path": "/run?x=1" } }, /mcp-path is/],
    ["a path that names a server", { Meta: { "mcp-path": "//evil.test/" } }, /mcp-path is/],
    ["a variable in its path, which is not expanded", { Meta: { "mcp-path": "/${HOME}" } }, /"\/\$\{HOME\}"/],
  ])("with %s is not called, and that is said", (_title, service, down) => {
    const stated = instance(service);
    expect(stated).toMatchObject({ live: false, down: expect.stringMatching(down) as string });
    expect(stated).not.toHaveProperty("url");
  });

  it("is called only while all its checks pass, its node's among them: a warning does not", () => {
    expect(instance({}, [{ Status: "passing" }, { CheckID: "serfHealth", ServiceID: "" }])).toMatchObject({
      live: true,
    });
    expect(instance({}, [{ Status: "warning", Name: "disk" }])).toMatchObject({
      live: false,
      down: 'its check "disk" is warning',
    });
    expect(
      instance({}, [{}, { Status: "critical", CheckID: "serfHealth", Name: "Serf", ServiceID: "" }]),
    ).toMatchObject({
      live: false,
      down: 'its node\'s check "Serf" is critical',
    });
  });

  it("in maintenance says so, with the operator's reason, before what else fails", () => {
    const failing = { Status: "critical", Name: "http" };
    const service = { CheckID: "_service_maintenance:orders-1", Status: "critical", Notes: "upgrade" };
    const node = { CheckID: "_node_maintenance", Status: "critical", Notes: "new disk", ServiceID: "" };
    expect(instance({}, [failing, service])).toMatchObject({
      live: false,
      down: "it is in maintenance: upgrade",
    });
    expect(instance({}, [failing, service, node])).toMatchObject({
      live: false,
      down: "its node is in maintenance: new disk",
    });
  });

  it("has Consul's weight for a passing instance, at least 1", () => {
    expect(instance({ Weights: { Passing: 7, Warning: 1 } }).weight).toBe(7);
    expect(instance({ Weights: { Passing: 0, Warning: 1 } }).weight).toBe(1);
    expect(instance({ Weights: null }).weight).toBe(1);
  });

  it("says by its meta how it is called; what is neither onex nor rest is refused", () => {
    expect(instance({ Meta: { "mcp-execution": "onex" } }).definition.execution).toEqual({
      kind: "onex",
      path: "",
    });
    expect(instance({ Meta: { "mcp-execution": "rest" } }).definition.execution).toEqual({
      kind: "rest",
      method: "POST",
      url: "",
    });
    expect(instance({ Meta: { "mcp-execution": "local" } }).claim).toEqual({
      refused: 'the tool orders: the meta mcp-execution is "local", expected onex or rest',
    });
  });

  it("has its own tags and those of its contract, which goes before meta", () => {
    const definition = {
      description: "Orders.",
      tags: ["shop", "mcp-enabled"],
      execution: { kind: "rest", method: "GET", url: "/orders" },
    } as const;
    const { instance: stated } = instanceRecord(row({ Meta: { "mcp-execution": "onex" } }), {
      state: "good",
      definition,
    });
    expect(stated.definition).toEqual({ ...definition, tags: [...toolTags("orders"), "shop"] });
  });

  it("is ignored without mcp-enabled, and where it is the proxy of another", () => {
    expect(isTagged(row({ Tags: ["node-type:orchestrator", "mcp-tool:orders"] }))).toBe(false);
    expect(isTagged(row({ Kind: "connect-proxy" }))).toBe(false);
    expect(isTagged(row({ Tags: ["mcp-enabled"] }))).toBe(true);
  });

  it("has its contract under the tool's name, or where its meta says", () => {
    expect(contractKeyOf(row())).toEqual({ key: "onex/contracts/nodes/orders", isNamed: false });
    expect(contractKeyOf(row({ Meta: { "mcp-contract": "/team/orders.yaml" } }))).toEqual({
      key: "team/orders.yaml",
      isNamed: true,
    });
    expect(contractKeyOf(row({ Tags: ["mcp-enabled"] }))).toBeUndefined();
  });
});

describe("what is known of all services", () => {
  it("is not changed by an answer that was asked for earlier", () => {
    const state = new ConsulState();
    const [early, late] = [state.beginRead(), state.beginRead()];
    state.putService("orders", [row({ Port: 2 })], late);
    expect(state.putService("orders", [row({ Port: 1 })], early)).toEqual({ put: [], remove: [] });
    expect(state.records()[0]?.instance.url).toBe("http://10.0.0.7:2");
  });

  it("is not changed by an answer that was asked for before another one that had no instance", () => {
    const state = new ConsulState();
    const [early, late, other] = [state.beginRead(), state.beginRead(), state.beginRead()];
    state.putService("orders", [], late);
    state.endRead(late);
    state.putService("bills", [], other);
    state.endRead(other);
    expect(state.putService("orders", [row()], early)).toEqual({ put: [], remove: [] });
    state.endRead(early);
    expect(state.records()).toEqual([]);
    expect(state.putService("orders", [row()], state.beginRead()).put).toHaveLength(1);
  });

  it("has of a contract outside the prefix nothing any more once no instance names it", () => {
    const state = new ConsulState();
    const key = "team/orders";
    const broken = { key, value: Buffer.from("{ broken"), modifyIndex: 1 };
    const contracts = new Map([[key, broken]]);
    const naming = (ID: string): ConsulInstance => row({ ID, Meta: { "mcp-contract": key } });
    const put = (service: string, ...rows: ConsulInstance[]): unknown =>
      state.putService(service, rows, state.beginRead(), contracts);
    put("orders", naming("orders-1"));
    put("bills", naming("bills-1"));
    put("orders", row({ ID: "orders-1" }));
    expect(state.problems().map((problem) => problem.key)).toEqual(["n1/bills-1", key]);
    put("bills");
    expect([...state.singleKeys(), ...state.contracts.keys(), ...state.problems()]).toEqual([]);
    // Its text came after the last instance that named it had left.
    expect(state.putContract(key, broken)).toEqual({ put: [], remove: [] });
    expect([...state.contracts.keys()]).toEqual([]);
  });

  it("has an instance without the tag where it is asked for, until it is dismissed, also where it leaves and comes back", () => {
    const state = new ConsulState();
    const plain = row({ Tags: ["web"] });
    const put = (...rows: ConsulInstance[]): unknown => state.putService("orders", rows, state.beginRead());
    state.ask("orders-1");
    put(plain, row({ ID: "orders-2", Tags: ["web"] }), row({ Kind: "connect-proxy", Tags: [] }, [], "n2"));
    expect(state.records().map(({ key }) => key)).toEqual(["n1/orders-1"]);
    expect(state.instance("orders-1")).not.toHaveProperty("claim");
    expect(state.problems()).toEqual([]);
    put();
    expect(state.instance("orders-1")).toBeUndefined();
    // No answer shows it: its service is looked over again and again.
    expect(state.serviceNames()).toEqual(["orders"]);
    expect([...state.differences(new Map())]).toEqual(["orders"]);
    put(plain);
    expect(state.instance("orders-1")).toBeDefined();
    state.dismiss("orders-1");
    put(plain);
    expect(state.instance("orders-1")).toBeUndefined();
    expect(state.serviceNames()).toEqual([]);
    expect([...state.differences(new Map())]).toEqual([]);
  });

  it("says only what has changed", () => {
    const state = new ConsulState();
    expect(state.putService("orders", [row()], state.beginRead()).put).toHaveLength(1);
    expect(state.putService("orders", [row()], state.beginRead())).toEqual({ put: [], remove: [] });
    expect(state.putService("orders", [], state.beginRead())).toEqual({ put: [], remove: ["n1/orders-1"] });
  });

  it("keeps an instance that has moved to another service, in whatever order the two are read", () => {
    const moved = row({ Service: "bills", ModifyIndex: 13 });
    for (const isOldFirst of [true, false]) {
      const state = new ConsulState();
      state.putService("orders", [row()], state.beginRead());
      const steps = [
        () => state.putService("orders", [], state.beginRead()),
        () => state.putService("bills", [moved], state.beginRead()),
      ];
      for (const step of isOldFirst ? steps : steps.reverse()) step();
      expect(state.records().map((record) => record.instance.serviceName)).toEqual(["bills"]);
    }
  });

  it("does not bring an instance back to the service it has left", () => {
    const state = new ConsulState();
    state.putService("bills", [row({ Service: "bills", ModifyIndex: 13 })], state.beginRead());
    expect(state.putService("orders", [row()], state.beginRead())).toEqual({ put: [], remove: [] });
    state.startEra();
    expect(state.putService("orders", [row()], state.beginRead()).put).toHaveLength(1);
  });

  it("keeps two instances with one id at two nodes apart", () => {
    const state = new ConsulState();
    state.putService("orders", [row(), row({}, [], "n2")], state.beginRead());
    expect(state.records().map(({ key }) => key)).toEqual(["n1/orders-1", "n2/orders-1"]);
  });

  it("is read again where its checks are others than they were when it was read, whatever was answered before", () => {
    const state = new ConsulState();
    const failing = { Status: "critical", ModifyIndex: 20 };
    const named = { ServiceName: "orders", ServiceTags: [] };
    const [check] = row({}, [{ ...failing, ...named }]).Checks;
    const [ofNode] = row({}, [{ ...failing, CheckID: "serfHealth", ServiceID: "" }]).Checks;
    const [ofOther] = row({}, [{ ...failing, CheckID: "x", ServiceName: "other" }]).Checks;
    const asked = (...checks: (typeof check)[]): string[] => [
      ...state.checkedOtherwise(
        checks.map((one) => one!),
        ({ ServiceName }) => ServiceName === "orders",
      ),
    ];
    state.putService("orders", [row()], state.beginRead());
    expect(asked()).toEqual([]);
    expect(asked(check)).toEqual(["orders"]);
    expect(asked(ofNode)).toEqual(["orders"]);
    expect(asked(ofOther)).toEqual([]);

    state.putService("orders", [row({}, [{ ...failing, ...named }])], state.beginRead());
    expect(asked(check)).toEqual([]);
    // It has passed again, or failed anew, since it was read.
    expect(asked()).toEqual(["orders"]);
    expect(asked({ ...check!, ModifyIndex: 21 })).toEqual(["orders"]);
  });
});
