/** Makes the sources that a configuration asks for. Owns: which there are, and what each is given. */
import { type EventBus, requireEventLog } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/log.ts";
import type { ConsulOptions } from "./consul-client.ts";
import { ConsulSource } from "./consul.ts";
import { ContractSource } from "./contracts.ts";
import { EventSource } from "./events.ts";

/** Where registration events come from. */
export interface RegistrationOptions {
  readonly topics: readonly string[];
  /** Topics are read from their beginning; else only what is registered from now on counts. */
  readonly replay: boolean;
  /** Of a topic that is made. */
  readonly partitions: number;
}

export interface SourcesOptions {
  /** Absent: no contracts are served. */
  readonly contractsDir?: string;
  readonly exposeNodeTypes: readonly string[];
  /** Absent: Consul is not contacted. */
  readonly consul?: ConsulOptions;
  /** Absent: no registration events are read. Needs a bus that is Kafka. */
  readonly registrations?: RegistrationOptions;
}

export interface SourcesParts {
  /** Closed by its owner. */
  readonly bus?: EventBus;
  /** No topic is made and no dead letter written, and the log is brief: for commands. Default false. */
  readonly readOnly?: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly clock: Clock;
}

export interface Sources {
  readonly contracts?: ContractSource;
  readonly consul?: ConsulSource;
  readonly events?: EventSource;
}

/** None is started. @throws ProtocolConfigurationError where events are asked for and the bus is not Kafka */
export function makeSources(options: SourcesOptions, parts: SourcesParts): Sources {
  const { env, log, clock } = parts;
  const { contractsDir: directory, exposeNodeTypes, registrations } = options;
  const contracts =
    directory === undefined ? undefined : new ContractSource({ directory, env, exposeNodeTypes, log, clock });
  const consul = options.consul && new ConsulSource({ consul: options.consul, log, clock });
  const events = registrations && eventSource(registrations, consul, parts);
  return {
    ...(contracts !== undefined && { contracts }),
    ...(consul !== undefined && { consul }),
    ...(events !== undefined && { events }),
  };
}

function eventSource(
  { topics, replay, partitions }: RegistrationOptions,
  consul: ConsulSource | undefined,
  { bus, readOnly = false, log: logger, clock }: SourcesParts,
): EventSource {
  const eventLog = requireEventLog(bus);
  return new EventSource({
    topics,
    replay,
    ...(!readOnly && { partitions }),
    log: eventLog,
    // A server that runs beside whoever only reads writes them.
    deadLetter: readOnly
      ? () => Promise.resolve()
      : (message, reason) => eventLog.deadLetter(message, reason, "events"),
    isBrief: readOnly,
    consul,
    logger,
    clock,
  });
}
