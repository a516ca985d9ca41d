/** What a runtime says of itself and of its contracts' tools, before anybody is told. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, onTestFinished, test } from "vitest";
import { readRemoteContract } from "../../src/contract/remote.ts";
import { contractServices, contractTools } from "../../src/discovery/register-contracts.ts";
import {
  deregisteredEvent,
  planRegistration,
  type RegisteredTool,
  registeredEvent,
  type RegisterOptions,
  type RegistrationPlan,
} from "../../src/discovery/register-service.ts";
import { registrationReader } from "../../src/discovery/registration-event.ts";
import type { Tool } from "../../src/tools/tool.ts";
import { tempFolder } from "../contract/folder.ts";
import { nodeContract, type NodeWish } from "../contract/nodes.ts";
import { root } from "../docs/markdown.ts";
import { messageOf } from "./registrations.ts";

const options: RegisterOptions = {
  name: "onex-runtime",
  check: "http",
  ttlSeconds: 15,
  intervalSeconds: 10,
  deregisterAfterSeconds: 3600,
};
const bound = { host: "10.0.0.7", port: 8090, path: "/mcp" };

interface Planned {
  readonly plan: RegistrationPlan;
  readonly tools: readonly Tool[];
}

/** The plan of a folder with one contract. */
async function planned(
  wish: NodeWish,
  env: Record<string, string> = {},
  changes: Partial<RegisterOptions> = {},
): Promise<Planned> {
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  await folder.write("tool.mjs", "export default () => 1;");
  await folder.write("forecast.json", JSON.stringify({ type: "object", required: ["days"] }));
  await folder.write("contract.yaml", nodeContract(wish));
  const files = { directory: folder.path, env, exposeNodeTypes: [] };
  const tools = await contractTools(files, {});
  expect(tools).toHaveLength(1);
  const readings = await contractServices(tools, files);
  return { tools, plan: planRegistration({ ...options, ...changes }, bound, readings) };
}

const execution = (fields: Record<string, unknown>): NodeWish => ({ mcp: { execution: fields } });
const onex = { kind: "onex", endpoints: ["http://10.0.0.8:7000", "https://[fd00::1]/v2/"], path: "/run" };

const onlyTool = ({ plan }: Planned): RegisteredTool => {
  expect(plan.left).toEqual([]);
  return plan.tools[0]!;
};

describe("the runtime itself", () => {
  test("is an MCP server at its address, checked at /ready", async () => {
    const { plan } = await planned(execution(onex));
    expect(plan.self).toEqual({
      id: "onex-runtime-10.0.0.7-8090",
      name: "onex-runtime",
      address: "10.0.0.7",
      port: 8090,
      tags: ["mcp-server", ...plan.tools.map(({ registration }) => `mcp-registers:${registration.id}`)],
      meta: {
        "mcp-path": "/mcp",
        "mcp-scheme": "http",
        "mcp-registered-by": "onex-runtime",
        version: expect.any(String) as string,
      },
      check: {
        id: "service:onex-runtime-10.0.0.7-8090",
        http: "http://10.0.0.7:8090/ready",
        interval: "10s",
        timeout: "2s",
        deregisterAfter: "3600s",
      },
    });
  });

  test("its id, its address and its port can be given, an IPv6 address too", () => {
    const plan = (changes: Partial<RegisterOptions>) =>
      planRegistration({ ...options, ...changes }, bound, []).self;
    expect(plan({ id: "a", address: "[fd00::2]", port: 80 })).toMatchObject({
      id: "a",
      address: "fd00::2",
      port: 80,
      check: { http: "http://[fd00::2]:80/ready" },
    });
    expect(plan({ check: "tcp" })?.check).toMatchObject({ tcp: "10.0.0.7:8090" });
    expect(plan({ check: "ttl", ttlSeconds: 9 })?.check).toMatchObject({ ttl: "9s" });
    expect(plan({ check: "none" })).not.toHaveProperty("check");
    expect(plan({ deregisterAfterSeconds: 0 })?.check).not.toHaveProperty("deregisterAfter");
  });

  test.each(["0.0.0.0", "::", "[::]"])("bound to %s it must be told its address", (host) => {
    expect(() => planRegistration(options, { ...bound, host }, [])).toThrow(/register\.address/);
    expect(planRegistration({ ...options, address: "here" }, { ...bound, host }, []).self?.address).toBe(
      "here",
    );
  });

  test("on any free port it must be told its port", () => {
    expect(() => planRegistration(options, { ...bound, port: 0 }, [])).toThrow(/register\.port/);
  });
});

describe("a tool that is a service", () => {
  test("is registered once for each of its addresses, with what it takes to call it", async () => {
    const { plan } = await planned({
      name: "meteo",
      mcp: { tool_name: "weather", tags: ["sky", "mcp-server", "node-type:reducer"], execution: onex },
    });
    expect(plan.tools.map(({ registration }) => registration)).toEqual([
      {
        id: "meteo-weather-10.0.0.8-7000",
        name: "meteo",
        address: "10.0.0.8",
        port: 7000,
        tags: ["mcp-enabled", "node-type:orchestrator", "mcp-tool:weather", "sky"],
        meta: {
          "mcp-path": "/",
          "mcp-scheme": "http",
          "mcp-execution": "onex",
          "mcp-contract": "onex/contracts/nodes/weather",
          "mcp-registered-by": "onex-runtime",
        },
        check: {
          id: "service:meteo-weather-10.0.0.8-7000",
          tcp: "10.0.0.8:7000",
          interval: "10s",
          timeout: "2s",
          deregisterAfter: "3600s",
        },
      },
      expect.objectContaining({
        id: "meteo-weather-fd00::1-443",
        address: "fd00::1",
        port: 443,
        meta: expect.objectContaining({ "mcp-path": "/v2", "mcp-scheme": "https" }) as unknown,
        check: expect.objectContaining({ tcp: "[fd00::1]:443" }) as unknown,
      }),
    ]);
  });

  test("two addresses on one host and port are two services", async () => {
    const endpoints = ["http://a:1/x", "http://a:1/y"];
    const { plan } = await planned(execution({ kind: "onex", endpoints }));
    expect(plan.tools.map(({ registration }) => registration.id)).toEqual(["weather-a-1", "weather-a-1-y"]);
  });

  const whole: NodeWish = {
    name: "weather",
    node_version: "2.1.0",
    mcp: {
      title: "Weather",
      description: "Says the weather.",
      timeout_seconds: 12,
      tags: ["sky"],
      annotations: { read_only: true, open_world: false },
      icons: [{ src: "https://example.com/icon.png", mime_type: "image/png" }],
      input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
      output_schema: { $ref: "./forecast.json" },
    },
  };
  const withExecution = (fields: object): NodeWish => ({
    ...whole,
    mcp: { ...whole.mcp, execution: fields },
  });
  const rest = {
    kind: "rest",
    method: "POST",
    url: "http://10.0.0.8:7000/v1/{city}?unit=c",
    headers: { accept: "application/json" },
    body: { day: "{day}" },
    result: "/data",
  };

  test.each<[string, object, object]>([
    ["onex", onex, { kind: "onex", path: "/run" }],
    ["rest", rest, { ...rest, url: "/v1/{city}?unit=c" }],
  ])("of kind %s says by contract and by event the same as its contract file", async (_kind, fields, how) => {
    const found = await planned(withExecution(fields));
    const [tool] = found.tools;
    const entry = onlyTool(found);
    const definition = {
      title: "Weather",
      description: "Says the weather.",
      version: "2.1.0",
      timeoutSeconds: 12,
      annotations: tool!.annotations,
      inputSchema: tool!.inputSchema,
      outputSchema: tool!.outputSchema,
      execution: how,
    };
    const { contract } = entry;
    expect(contract.key).toBe("onex/contracts/nodes/weather");
    expect(contract.text).not.toMatch(/10\.0\.0\.8|\$ref/);
    expect(readRemoteContract(Buffer.from(contract.text))).toEqual({
      ok: true,
      definition: { ...definition, tags: ["sky"], icons: tool!.icons },
      notes: [],
    });
    const { registration } = entry;
    const message = registeredEvent(entry, "me");
    expect(registrationReader()(messageOf(message.value, { key: message.key }))).toMatchObject({
      ok: true,
      event: {
        type: "registered",
        serviceId: registration.id,
        ignored: [],
        instance: {
          serviceName: "weather",
          claim: { toolName: "weather" },
          url: "http://10.0.0.8:7000",
          definition: { ...definition, tags: registration.tags },
        },
      },
    });
  });

  test("its events fit the published schema and carry the bus's headers", async () => {
    const schema = JSON.parse(
      readFileSync(join(root, "schemas/registration-event.schema.json"), "utf8"),
    ) as object;
    const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(schema);
    const entry = onlyTool(await planned(withExecution(onex)));
    const { id } = entry.registration;
    for (const message of [registeredEvent(entry, "me"), deregisteredEvent(id, "me")]) {
      const event = JSON.parse(Buffer.from(message.value!).toString()) as Record<string, string>;
      expect(validate(event), JSON.stringify(validate.errors)).toBe(true);
      expect([message.key, event.service_id]).toEqual([id, id]);
      expect(message.headers).toEqual({
        content_type: "application/json",
        correlation_id: event.event_id,
        message_id: event.event_id,
        timestamp: event.emitted_at,
        source: "me",
        event_type: `node.${event.event_type!}`,
        schema_version: "1.0.0",
      });
    }
  });
});

describe("a tool that is no service of its own", () => {
  test.each<[object, string]>([
    [{ kind: "local", module: "./tool.mjs" }, "it runs in the runtime's process"],
    [{ kind: "bus", topic: "orders" }, "it is called over the event bus"],
    [{ kind: "onex" }, "its instances come from Consul"],
  ])("is left out: %j", async (fields, reason) => {
    const { plan } = await planned(execution({ ...fields }));
    expect(plan.tools).toEqual([]);
    expect(plan.left).toEqual([{ tool: "weather", reason: expect.stringContaining(reason) as string }]);
  });
});

describe("what may be a secret stays here", () => {
  const env = { HOST: "10.0.0.8:7000", BASE: "http://10.0.0.8:7000/hooks/s3cret", TOKEN: "s3cret" };
  const rest = (fields: object) => execution({ kind: "rest", url: "http://10.0.0.8:7000/a", ...fields });

  test.each<[string, NodeWish]>([
    ["mcp.execution.headers.x-thing", rest({ headers: { "x-thing": "${TOKEN}" } })],
    ["mcp.execution.headers.x-thing", rest({ headers: { "x-thing": "Bearer ${TOKEN:-none}" } })],
    ["mcp.execution.query.q", rest({ query: { q: "${TOKEN}" } })],
    ["mcp.execution.body.deep[0].x", rest({ body: { deep: [{ x: "${TOKEN}" }] } })],
    ["mcp.execution.url", rest({ url: "${BASE}" })],
    ["mcp.execution.url", rest({ url: "${BASE}/{city}" })],
    ["mcp.execution.url", rest({ url: "http://${HOST}/a?key=${TOKEN}" })],
    ["mcp.execution.url", rest({ url: "http://${HOST}/${TOKEN}/a" })],
    ["mcp.execution.path", execution({ kind: "onex", endpoint: "http://a", path: "/${TOKEN}" })],
    ["mcp.execution.headers.Authorization", rest({ headers: { Authorization: "Basic abc" } })],
    ["mcp.execution.query.api_key", rest({ query: { api_key: "abc" } })],
  ])("%s keeps the tool out, without its value: %j", async (where, wish) => {
    const { plan } = await planned(wish, env);
    expect(plan.tools).toEqual([]);
    expect(plan.left).toEqual([{ tool: "weather", reason: expect.stringContaining(where) as string }]);
    expect(JSON.stringify(plan)).not.toContain("s3cret");
  });

  test.each<[string, NodeWish]>([
    ["http://10.0.0.8:7000", rest({ url: "http://${HOST}/hooks/{city}" })],
    ["http://10.0.0.8:7000", rest({ url: "http://${HOST:-b}/a", headers: { authorization: "{token}" } })],
    ["http://10.0.0.8:7000", execution({ kind: "onex", endpoints: ["http://${HOST}"], path: "/run" })],
    ["http://10.0.0.8:7000/hooks/s3cret", execution({ kind: "onex", endpoint: "${BASE}" })],
  ])("an address may come from the environment: %s from %j", async (url, wish) => {
    expect(onlyTool(await planned(wish, env)).address.url).toBe(url);
  });
});

test("a contract that was edited since it was served is left out", async () => {
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  await folder.write("contract.yaml", nodeContract(execution(onex)));
  const files = { directory: folder.path, env: {}, exposeNodeTypes: [] };
  const tools = await contractTools(files, {});
  await folder.write("contract.yaml", nodeContract(execution({ ...onex, path: "/other" })));
  expect(await contractServices(tools, files)).toEqual([
    { ok: false, tool: "weather", reason: expect.stringContaining("not the one that is served") as string },
  ]);
  await folder.remove("contract.yaml");
  expect(await contractServices(tools, files)).toMatchObject([{ ok: false, tool: "weather" }]);
});

test("tags of the runtime's filters hold for what is registered", async () => {
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  await folder.write("contract.yaml", nodeContract({ mcp: { execution: onex, tags: ["internal"] } }));
  const files = { directory: folder.path, env: {}, exposeNodeTypes: [] };
  expect(await contractTools(files, {})).toEqual([]);
});
