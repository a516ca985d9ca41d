/** The whole system as docker-compose.yml describes it, without Docker: its processes, its environment, its commands. */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { describeWithOwnServices } from "../services/index.ts";
import { ServiceProcess, untilReady } from "../services/process.ts";
import { consulProgram, kafkaProgram } from "../services/programs.ts";
import { root } from "../support/runtime.ts";
import { readCompose } from "./files.ts";
import { brokerProperties, Machine, type Container } from "./machine.ts";

const run = promisify(execFile);
const silent = (): void => undefined;
const replicas = ["runtime-1", "runtime-2"] as const;

describeWithOwnServices("docker-compose.yml's processes", () => {
  let folder: string;
  let machine: Machine;
  let consulPath: string;
  const services: ServiceProcess[] = [];
  const nodes = new Map<string, { readonly child: ChildProcess; readonly output: string[] }>();
  const clients = new Map<string, Client>();

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "onex-compose-"));
    machine = await Machine.create(await readCompose(), folder);
    await Promise.all([startConsul(), startKafka()]);
    for (const name of [...replicas, "sample"]) startNode(name, await machine.container(name));
    for (const name of replicas) clients.set(name, await connect(machine.port(name, 8090)));
  }, 120_000);

  afterAll(async () => {
    for (const client of clients.values()) await client.close();
    for (const { child } of nodes.values()) child.kill("SIGKILL");
    for (const service of services) await service.kill();
    await rm(folder, { recursive: true, force: true });
  });

  async function startConsul(): Promise<void> {
    const { command, healthcheck } = await machine.container("consul");
    consulPath = await consulProgram(silent);
    // The ports of a container are its own; here they must be told apart from other tests'.
    const [http, server, serf] = [8500, 8300, 8301].map((port) => machine.port("consul", port));
    const ports = { http, server, serf_lan: serf, serf_wan: -1, dns: -1, grpc: -1, grpc_tls: -1 };
    const port = `-hcl=ports = ${JSON.stringify(ports).replaceAll('":', '"=')}`;
    const service = new ServiceProcess(consulPath, [...command, port], folder);
    services.push(service);
    const [kind, program, ...args] = healthcheck;
    expect([kind, program]).toEqual(["CMD", "consul"]);
    const env = { ...process.env, CONSUL_HTTP_ADDR: `127.0.0.1:${http}` };
    await untilReady("Consul", service, () => run(consulPath, args, { env }).then(() => undefined));
  }

  async function startKafka(): Promise<void> {
    const { environment } = await machine.container("kafka");
    const jars = await kafkaProgram(silent);
    const file = join(folder, "server.properties");
    await writeFile(file, brokerProperties(environment));
    const java = [environment["KAFKA_HEAP_OPTS"]!, "-cp", join(jars, "*")];
    const format = [
      "kafka.tools.StorageTool",
      "format",
      "--config",
      file,
      "--cluster-id",
      "5L6g3nShT-eMCtK--X86sw",
    ];
    await run("java", [...java, ...format]);
    const service = new ServiceProcess("java", [...java, "kafka.Kafka", file], folder);
    services.push(service);
  }

  /** With nothing in its environment but what stands there, the way to Node, and the operator port's default moved. */
  function startNode(name: string, { command, environment }: Container): void {
    expect(command[0]).toBe("node");
    const operators = name === "sample" ? {} : { ONEX_HTTP_PORT: String(machine.port(name, 8085)) };
    const env = { PATH: process.env["PATH"], ...environment, ...operators };
    const child = spawn(process.execPath, command.slice(1), {
      cwd: root,
      env,
      stdio: ["ignore", "ignore", "pipe"],
    });
    const output: string[] = [];
    child.stderr.on("data", (chunk: Buffer) => output.push(chunk.toString()));
    nodes.set(name, { child, output });
  }

  async function connect(port: number): Promise<Client> {
    const url = new URL(`http://127.0.0.1:${port}/mcp`);
    await vi
      .waitFor(() => fetch(url), { timeout: 60_000 })
      .catch((error: unknown) => {
        throw new Error(logs(), { cause: error });
      });
    const client = new Client({ name: "compose", version: "1.0.0" });
    await client.connect(new StreamableHTTPClientTransport(url));
    return client;
  }

  const toolNames = async (name: string): Promise<string[]> =>
    (await clients.get(name)!.listTools()).tools.map((tool) => tool.name);

  const logs = (): string => [...nodes].map(([name, { output }]) => `${name}: ${output.join("")}`).join("\n");

  it.each(replicas)("%s serves the tool that the sample node registered, and calls it", async (name) => {
    await expect.poll(() => toolNames(name), { message: logs() }).toContain("track_parcel");
    const call = { name: "track_parcel", arguments: { order_id: "A-1001" } };
    const answer = await clients.get(name)!.callTool(call);
    expect(answer.structuredContent, `${JSON.stringify(answer)}\n${logs()}`).toEqual({
      order_id: "A-1001",
      state: "shipped",
      moving: true,
    });
  });

  it.each(replicas)("%s calls the sample node by the address that its contract files take", async (name) => {
    const { structuredContent } = await clients
      .get(name)!
      .callTool({ name: "get_order", arguments: { order_id: "A-1001" } });
    expect(structuredContent).toMatchObject({ order_id: "A-1001", state: "shipped" });
  });

  it("the tool is registered both ways: in Consul with its check, and on Kafka", async () => {
    const port = machine.port("consul", 8500);
    const health = async (): Promise<any> =>
      (await fetch(`http://127.0.0.1:${port}/v1/health/service/sample-parcels?passing`)).json();
    await expect.poll(health).toMatchObject([{ Service: { Port: machine.port("sample", 8095) } }]);
    const sources = async (name: string): Promise<string[]> => {
      const url = `http://127.0.0.1:${machine.port(name, 8090)}/mcp/tools/track_parcel/explain`;
      const { records } = (await (await fetch(url)).json()) as any;
      return records.map(({ kind }: { readonly kind: string }) => kind).sort();
    };
    for (const name of replicas)
      await expect.poll(() => sources(name), { message: logs() }).toEqual(["consul", "event"]);
  });

  it("the health checks of the sample node and of the image pass", async () => {
    const sample = await machine.container("sample");
    const [kind, ...args] = sample.healthcheck;
    expect([kind, args[0]]).toEqual(["CMD", "node"]);
    await run(process.execPath, args.slice(1));
    for (const name of replicas) {
      const ready = `http://127.0.0.1:${machine.port(name, 8085)}/ready`;
      await expect.poll(async () => (await fetch(ready)).status, { message: logs() }).toBe(200);
    }
  });

  it("the sample node takes itself out when it is stopped, and both replicas follow", async () => {
    expect(await stop("sample"), logs()).toBe(0);
    for (const name of replicas) await expect.poll(() => toolNames(name)).not.toContain("track_parcel");
  });

  it("both replicas stop with 0, also once the services are gone", async () => {
    expect(await stop("runtime-1"), logs()).toBe(0);
    for (const service of services) await service.kill();
    expect(await stop("runtime-2"), logs()).toBe(0);
  });

  async function stop(name: string): Promise<unknown> {
    const { child } = nodes.get(name)!;
    const exit = once(child, "exit");
    child.kill("SIGTERM");
    return (await exit)[0];
  }
});
