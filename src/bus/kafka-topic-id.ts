/**
 * Which topic a name stands for: a topic that is deleted and made anew keeps its name, not its id. Owns: asking a broker
 * for the id, which the library's own requests leave out. Does not own: what follows from another id (`kafka-reader.ts`).
 *
 * 1. Brokers before Kafka 2.8 know no ids, another version of the library may show no connection, and what speaks for a
 *    broker may answer in a form of its own: then there is none, and nothing waits for one.
 */
import type { Cluster } from "kafkajs";
import type { KafkaLink } from "./kafka-link.ts";

/** Of the protocol: the request and the first version of it that tells ids. */
const metadata = { apiKey: 3, apiVersion: 10, apiName: "Metadata" } as const;
const unknownTopicCode = 3;

/** What the library has and its types leave out. */
interface Inside {
  readonly brokerPool?: { readonly seedBroker?: Partial<Peer> };
}
interface Peer {
  readonly versions: Readonly<Record<number, { readonly maxVersion: number }>> | null;
  readonly connectionPool: { send(exchange: unknown): Promise<unknown> };
}

/** The library's view of the brokers, on a connection of its own, which ends with the link; undefined: it shows none. */
export async function clusterOf(link: KafkaLink): Promise<Cluster | undefined> {
  let cluster: Cluster | undefined;
  // The library shows it to whoever shares out a group's partitions; this consumer never joins one.
  link.kafka.consumer({
    groupId: "none",
    partitionAssigners: [
      (parts) => {
        cluster = parts.cluster;
        return { name: "none", version: 0, assign: async () => [], protocol: neverAsked };
      },
    ],
  });
  await cluster?.connect();
  return cluster;
}

/** Undefined where the topic is absent; `""` where its id is not told. (1) @throws what the library throws */
export async function topicId(
  cluster: Cluster | undefined,
  topic: string,
  isThere: () => Promise<boolean>,
): Promise<string | undefined> {
  const untold = async (): Promise<string | undefined> => ((await isThere()) ? "" : undefined);
  const { versions, connectionPool } = (cluster as Inside | undefined)?.brokerPool?.seedBroker ?? {};
  if (connectionPool === undefined || (versions?.[metadata.apiKey]?.maxVersion ?? 0) < metadata.apiVersion)
    return await untold();
  const answer = await connectionPool.send({
    request: { ...metadata, encode: async () => encoded(topic) },
    response: {
      decode: async (payload: Buffer) => ({ payload }),
      parse: async (data: unknown) => data,
    },
  });
  try {
    return decoded((answer as { readonly payload: Buffer }).payload);
  } catch (thrown) {
    if (thrown instanceof Unreadable) return await untold();
    throw thrown;
  }
}

/** In the form of the library's encoders. */
function encoded(topic: string): { readonly buf: Buffer; readonly buffer: Buffer } {
  const name = Buffer.from(topic);
  const bytes = Buffer.concat([
    // The end of the header; one topic; no id; its name; makes no topic; no permissions; the end.
    Buffer.from([0, 2]),
    Buffer.alloc(16),
    varint(name.length + 1),
    name,
    Buffer.from([0, 0, 0, 0, 0]),
  ]);
  return { buf: bytes, buffer: bytes };
}

/** The id of the one topic that was asked for. @throws Unreadable */
function decoded(payload: Buffer): string | undefined {
  const reader = new Reader(payload);
  reader.tags();
  reader.skip(4);
  for (let brokers = reader.varint() - 1; brokers > 0; brokers -= 1) {
    reader.skip(4);
    reader.text();
    reader.skip(4);
    reader.text();
    reader.tags();
  }
  reader.text();
  reader.skip(4);
  if (reader.varint() !== 2) throw new Unreadable("the broker says nothing of the topic");
  const code = reader.take(2).readInt16BE();
  reader.text();
  const id = reader.take(16);
  if (code === unknownTopicCode) return undefined;
  // Other codes are about its partitions, which may have no leader yet; a topic that may not be seen has no id.
  return id.every((byte) => byte === 0) ? "" : id.toString("hex");
}

/** (1) */
class Unreadable extends Error {}

/** Of the protocol's compact forms, as far as they are needed. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new Unreadable("the broker's answer is cut off");
    const part = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return part;
  }

  skip(length: number): void {
    this.take(length);
  }

  varint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.take(1).readUInt8();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }

  text(): void {
    this.skip(Math.max(this.varint() - 1, 0));
  }

  tags(): void {
    for (let count = this.varint(); count > 0; count -= 1) {
      this.varint();
      this.skip(this.varint());
    }
  }
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return Buffer.from([...bytes, rest]);
}

function neverAsked(): never {
  throw new Error("this consumer joins no group");
}
