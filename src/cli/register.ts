/**
 * `onex register` and `onex deregister`: this runtime and the services of its contracts in Consul, and on Kafka, once.
 * Owns: the options over the configuration, and the order of what is done. Does not own: what is registered
 * (`discovery/`), how it is printed (`register-report.ts`), or keeping it registered (the mcp handler does, where it is
 * configured to).
 */
import type { EventBus } from "../bus/bus.ts";
import type { LoadedConfig } from "../config/load.ts";
import { ProtocolConfigurationError, RuntimeHostError } from "../core/errors.ts";
import { createLogger } from "../core/log.ts";
import { type ConsulOptions, openConsul } from "../discovery/consul-client.ts";
import { contractServices, contractTools } from "../discovery/register-contracts.ts";
import { eventTarget, type Publishing } from "../discovery/register-publish.ts";
import {
  type CheckKind,
  planRegistration,
  type RegisterOptions,
  type RegistrationPlan,
} from "../discovery/register-service.ts";
import { parseMcpConfig, type McpConfig } from "../handlers/mcp-config.ts";
import { isLoopback } from "../http/address.ts";
import { composeBus } from "./compose.ts";
import { findMcp, readConfig } from "./open.ts";
import { dryRow, dryRows, printReport, type Report } from "./register-report.ts";
import { deregisterAll, deregisterOne, registerAll } from "./register-run.ts";
import { claimStdout } from "./stdout.ts";
import { UsageError } from "./usage.ts";

export interface RegisterCommand {
  readonly config?: string;
  /** Names of tools; none: all. */
  readonly tool?: readonly string[];
  readonly id?: string;
  readonly address?: string;
  readonly port?: string;
  /** For `register` only. */
  readonly check?: string;
  /** Whether the runtime itself is meant as well. */
  readonly self: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

const checkKinds = ["http", "tcp", "ttl", "none"] as const satisfies readonly CheckKind[];

interface Context {
  readonly config: LoadedConfig;
  readonly mcp: McpConfig;
  /** `register` of the configuration, with the command line over it. */
  readonly options: RegisterOptions;
}

/** Resolves with the exit code: 1 where anything could not be registered. */
export async function register(command: RegisterCommand): Promise<number> {
  const stdout = claimStdout();
  const context = await contextOf(command);
  const plan = await planOf(context, command);
  const report: Report = { services: [], notes: [], failures: [] };
  remark(plan, context, command.tool ?? [], report);
  if (command.dryRun === true) report.services.push(...dryRows(plan, "would be registered"));
  else await publish(context, report, (parts) => registerAll(plan, parts, report));
  return printReport(stdout, report, command.json === true);
}

/** Resolves with the exit code: 0 also where nothing was registered. */
export async function deregister(command: RegisterCommand): Promise<number> {
  const stdout = claimStdout();
  const { id } = command;
  const context = await contextOf(command);
  const report: Report = { services: [], notes: [], failures: [] };
  if (id !== undefined) {
    if (command.dryRun === true) report.services.push(dryRow(id));
    else await publish(context, report, (parts) => deregisterOne(id, parts, report));
  } else {
    const plan = await planOf(context, command);
    if (command.dryRun === true) report.services.push(...dryRows(plan, "would be taken out"));
    else await publish(context, report, (parts) => deregisterAll(plan, parts, report));
  }
  return printReport(stdout, report, command.json === true);
}

async function contextOf(command: RegisterCommand): Promise<Context> {
  const flags = flagsOf(command);
  const config = await readConfig(command.config);
  const mcp = parseMcpConfig((await findMcp(config)).settings);
  return { config, mcp, options: { ...mcp.register, ...flags } };
}

async function planOf(
  { config, mcp, options }: Context,
  { tool: names = [], self: isSelf }: RegisterCommand,
): Promise<RegistrationPlan> {
  const { host, port, path, contractsDir, exposeNodeTypes } = mcp;
  const directory = contractsDir ?? config.contractsDir;
  const files = { directory, env: config.env, exposeNodeTypes };
  const tools = contractsDir === undefined ? [] : await contractTools(files, mcp);
  const readings = await contractServices(namedTools(tools, names), files);
  return planRegistration(options, isSelf ? { host, port, path } : undefined, readings);
}

/** What the command line lays over `register` of the configuration. */
function flagsOf(command: RegisterCommand): Partial<RegisterOptions> {
  const { id, address, port: portText, check: checkText } = command;
  const check = checkKinds.find((kind) => kind === checkText);
  if (checkText !== undefined && check === undefined)
    throw new UsageError(`--check ${JSON.stringify(checkText)} is none of ${checkKinds.join(", ")}`);
  const port = portText === undefined ? undefined : Number(portText);
  if (port !== undefined && !(Number.isInteger(port) && port >= 1 && port <= 65_535))
    throw new UsageError(`--port ${JSON.stringify(portText)} is not a port: 1 to 65535`);
  for (const [name, value] of Object.entries({ id, address }))
    if (value === "") throw new UsageError(`--${name} is empty`);
  return {
    ...(id !== undefined && { id }),
    ...(address !== undefined && { address }),
    ...(port !== undefined && { port }),
    ...(check !== undefined && { check }),
  };
}

/** @throws ProtocolConfigurationError for a name that none of them has */
function namedTools<T extends { readonly name: string }>(
  tools: readonly T[],
  names: readonly string[],
): readonly T[] {
  const unknown = names.find((name) => !tools.some((tool) => tool.name === name));
  if (unknown === undefined)
    return names.length === 0 ? tools : tools.filter(({ name }) => names.includes(name));
  const known = tools.map(({ name }) => name).join(", ");
  throw new ProtocolConfigurationError(
    `No contract serves a tool ${JSON.stringify(unknown)}; there are: ${known === "" ? "none" : known}. \`onex check\` says what became of every contract.`,
  );
}

/** What to know of a plan before it is carried out. A tool that was asked for and is no service is a failure. */
function remark(
  { self, tools, left }: RegistrationPlan,
  { options }: Context,
  names: readonly string[],
  { notes, failures }: Report,
): void {
  const isAsked = names.length > 0;
  for (const { tool, reason } of left)
    (isAsked ? failures : notes).push(`${tool} is not registered as a service: ${reason}`);
  const addresses = [self, ...tools.map(({ registration }) => registration)].map((entry) => entry?.address);
  for (const address of new Set(addresses))
    if (address !== undefined && isLoopback(address))
      notes.push(`${address} is reached from this machine only`);
  if (self !== undefined && options.check === "ttl")
    notes.push(
      `the check of ${self.id} fails until somebody passes it, and again ${options.ttlSeconds} s later: a runtime passes it where its configuration has register.enabled`,
    );
}

/** Opens what the work needs, and closes it. */
async function publish(
  { config, mcp }: Context,
  report: Report,
  work: (parts: Publishing) => Promise<void>,
): Promise<void> {
  const { logging, name: source } = config.runtime;
  // What keeps Kafka from being reached is in the report.
  const isChatty = logging.level === "info" || logging.level === "warn";
  const quiet = isChatty ? { ...logging, level: "error" as const } : logging;
  const log = createLogger({ ...quiet, secrets: config.secrets });
  const consul = await openConsul(consulOptions(config, mcp));
  let bus: EventBus | undefined;
  try {
    bus = composeBus(config, log);
    const events = mcp.register.events && eventTarget(bus, mcp.register.events);
    if (events === undefined) report.notes.push(`no event is sent: ${noEvents(mcp, bus)}`);
    else await bus.start();
    await work({ consul, source, ...(events !== undefined && { events }) });
  } catch (error) {
    throw withRemedy(error);
  } finally {
    consul.close();
    await bus?.close();
  }
}

const noEvents = ({ register: { events } }: McpConfig, bus: EventBus): string =>
  events === undefined
    ? "register.events is false"
    : `the event bus is ${bus.health().type}; set KAFKA_BOOTSTRAP_SERVERS, or event_bus.type: kafka with its bootstrap_servers`;

function consulOptions({ runtime, file }: LoadedConfig, mcp: McpConfig): ConsulOptions {
  if (mcp.devMode === true) {
    throw new ProtocolConfigurationError(
      `handlers.mcp.dev_mode is true in ${file}: neither Consul nor Kafka is contacted. Set dev_mode: false (ONEX_DEV_MODE=false) to register.`,
    );
  }
  const options = mcp.consul ?? runtime.consul;
  if (options !== undefined) return options;
  throw new ProtocolConfigurationError(
    `Consul is not configured in ${file}: set consul_host and consul_port of handlers.mcp (CONSUL_HOST, CONSUL_PORT), or the section consul.`,
  );
}

/** A connection that fails is most often one to the wrong place. */
function withRemedy(error: unknown): unknown {
  const isUnreachable =
    error instanceof Error && ["InfraConnectionError", "InfraTimeoutError"].includes(error.name);
  if (!isUnreachable) return error;
  return new RuntimeHostError(
    `${error.message}. Does an agent run there? consul_host and consul_port of handlers.mcp (CONSUL_HOST, CONSUL_PORT) say where it is.`,
    { cause: error },
  );
}
