/**
 * Telling Consul and Kafka of a registration, and of its end. Owns: what is written where, and that what others wrote
 * stays. Does not own: what is registered (`register-service.ts`), or trying again (`register.ts`).
 *
 * 1. A service or a contract that somebody else wrote under our id or key is left as it is.
 * 2. A contract stays as long as any service claims its tool.
 * 3. All that can be done is done before the first failure is reported.
 */
import { isEventLog, type BusMessage, type EventBus, type EventLog } from "../bus/bus.ts";
import type { ConsulClient, ConsulRegistration } from "./consul-client.ts";
import { idFilter } from "./consul-filter.ts";
import {
  deregisteredEvent,
  isOurContract,
  isOurService,
  keptBy,
  type RegisteredTool,
  registeredEvent,
} from "./register-service.ts";
import { toolTagOf } from "./tags.ts";

/** Where registration events go. */
export interface EventTarget {
  readonly bus: EventBus & EventLog;
  readonly topic: string;
  /** Of the topic, if it is made. */
  readonly partitions: number;
}

/** The target where the bus is Kafka; else undefined: events are for others, and nobody else reads this bus. */
export const eventTarget = (
  bus: EventBus | undefined,
  options: Pick<EventTarget, "topic" | "partitions">,
): EventTarget | undefined => (isEventLog(bus) ? { ...options, bus } : undefined);

export interface Publishing {
  readonly consul: ConsulClient;
  /** Absent: no events are sent. */
  readonly events?: EventTarget;
  /** Who says so, in the headers of events. */
  readonly source: string;
}

/** Whether a service was registered by a runtime or by somebody else. */
export type Registrant = "runtime" | "other";

/** Ids that one question to the agent names: they stand in its URL. */
const idsPerQuestion = 50;

/** Which of these services the agent has. */
export async function registeredAt(
  consul: ConsulClient,
  ids: readonly string[],
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, Registrant>> {
  const found = new Map<string, Registrant>();
  for (let at = 0; at < ids.length; at += idsPerQuestion) {
    const asked = ids.slice(at, at + idsPerQuestion);
    const filter = idFilter(asked);
    const services = await consul.agentServices({
      ...(filter !== undefined && { filter }),
      ...(signal !== undefined && { signal }),
    });
    for (const { ID, Meta } of services)
      if (asked.includes(ID)) found.set(ID, isOurService(Meta) ? "runtime" : "other");
  }
  return found;
}

/**
 * Writes the contract and registers the service.
 *
 * @returns whether the contract is now ours; false: somebody else's is there, and stays (1)
 */
export async function registerTool(
  { consul }: Publishing,
  { registration, contract: { key, text } }: RegisteredTool,
  signal?: AbortSignal,
): Promise<boolean> {
  const present = await consul.readKey(key, signal);
  const before = present === undefined ? undefined : decode(present.value);
  const isOurs = before === undefined || isOurContract(before);
  // First, so that nobody sees the service without it.
  if (isOurs && before !== text) await consul.putKey(key, text);
  await consul.registerService(registration, signal);
  return isOurs;
}

/**
 * Resolves when the topic is there. A publisher would make it without compaction, and what was registered would be
 * forgotten some day.
 */
export async function ensureTopic(
  { bus, topic, partitions }: EventTarget,
  signal: AbortSignal,
): Promise<void> {
  const create = { partitions, compacted: true };
  const following = await bus.follow(topic, { replay: false, create, onMessages: () => undefined }, signal);
  following.caughtUp.catch(() => undefined);
  await following.close();
}

export const announceTool = async ({ events, source }: Publishing, entry: RegisteredTool): Promise<void> =>
  await send(events, registeredEvent(entry, source));

export const announceGone = async ({ events, source }: Publishing, serviceId: string): Promise<void> =>
  await send(events, deregisteredEvent(serviceId, source));

/** Takes a service out where a runtime registered it; who had. Undefined: it was not there. (1) */
export async function removeService(consul: ConsulClient, id: string): Promise<Registrant | undefined> {
  const registrant = (await registeredAt(consul, [id])).get(id);
  if (registrant === "runtime") await consul.deregisterService(id);
  return registrant;
}

export interface ContractPlace {
  readonly toolName: string;
  readonly key: string;
}

/** Removes the contracts of tools whose services are gone. (1) (2) */
export async function removeContracts(
  consul: ConsulClient,
  contracts: readonly ContractPlace[],
  signal?: AbortSignal,
): Promise<void> {
  if (contracts.length === 0) return;
  const { data } = await consul.services(signal === undefined ? {} : { signal });
  const tags = new Set(Object.values(data).flat());
  await forEachOf(contracts, async ({ toolName, key }) => {
    if (tags.has(toolTagOf(toolName))) return;
    const present = await consul.readKey(key, signal);
    if (present !== undefined && isOurContract(decode(present.value))) await consul.deleteKey(key);
  });
}

/** The ids of the tools' services that other runtimes of this name keep registered, and can be called. */
export async function keptByOthers(
  { consul }: Publishing,
  self: Pick<ConsulRegistration, "id" | "name">,
  signal?: AbortSignal,
): Promise<ReadonlySet<string>> {
  const { data } = await consul.instances(self.name, signal === undefined ? {} : { signal });
  const others = data.filter(({ Service, Checks }) => {
    return Service.ID !== self.id && Checks.every(({ Status }) => Status !== "critical");
  });
  return new Set(others.flatMap(({ Service }) => keptBy(Service.Tags)));
}

async function send(events: EventTarget | undefined, message: BusMessage): Promise<void> {
  await events?.bus.publish(events.topic, message);
}

/** As `Promise.all`, but rejects only once all have ended. (3) */
export async function allOf<const T extends readonly Promise<unknown>[]>(
  work: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  const ends = await Promise.allSettled(work);
  const failed = ends.find((end) => end.status === "rejected");
  if (failed !== undefined) throw failed.reason;
  return ends.map((end) => (end as PromiseFulfilledResult<unknown>).value) as {
    -readonly [K in keyof T]: Awaited<T[K]>;
  };
}

/** Services that are told of at once: more would only queue, and run into their time limit. */
const atOnce = 16;

/** Does the work for each item, some at a time. (3) */
export async function forEachOf<T>(items: Iterable<T>, work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items].values();
  const drain = async (): Promise<void> => {
    let failure: { readonly error: unknown } | undefined;
    for (const item of queue) await work(item).catch((error: unknown) => (failure ??= { error }));
    if (failure !== undefined) throw failure.error;
  };
  await allOf(Array.from({ length: atOnce }, drain));
}

const decoder = new TextDecoder();
const decode = (value: Uint8Array): string => decoder.decode(value);
