/**
 * One client of the Kafka library, with the sockets it opened. Owns: loading the library, whether brokers are reached,
 * cutting a client off, and the library's log lines. Does not own: what is sent (`kafka-producer.ts`, `kafka-reader.ts`).
 *
 * 1. A link that was cut opens nothing any more, and whatever the library still waits for ends within seconds: by
 *    itself it would go on trying to connect, and with it the process.
 * 2. A member can finish what it runs before it takes part in a rebalance. The library has no place for that: it joins
 *    at once, and by then the member's partitions may be another one's. So the request itself waits.
 */
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type * as Kafkajs from "kafkajs";
import type { ISocketFactoryArgs, Kafka, KafkaConfig, LogEntry, RetryOptions } from "kafkajs";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { calmIdleConnections } from "./kafka-idle.ts";
import type { KafkaReach } from "./kafka-reach.ts";

export type Library = typeof Kafkajs;

/** What all links of one bus share. */
export interface LinkOptions {
  readonly library: Library;
  readonly clientId: string;
  readonly servers: readonly string[];
  readonly security: Pick<KafkaConfig, "ssl" | "sasl">;
  /** Takes the library's own lines: `libraryLog`. */
  readonly write: (entry: LogEntry) => void;
  readonly reach: KafkaReach;
}

export async function loadLibrary(): Promise<Library> {
  const library = await import("kafkajs");
  await calmIdleConnections();
  return library;
}

/** For a machine that drops packets; one that refuses is noticed at once. */
const connectionTimeoutMs = 3000;
const requestTimeoutMs = 15_000;
const keepAliveMs = 60_000;
/** The protocol's number of the request with which a member joins its group, anew at each rebalance. */
const joinGroup = 11;

export class KafkaLink {
  readonly kafka: Kafka;
  readonly #sockets = new Set<Socket>();
  readonly #connected = new Set<Socket>();
  readonly #beforeJoin: (() => Promise<void>) | undefined;
  readonly #reach: KafkaReach;
  #unreachableSince: Date | undefined = new Date();
  #isCut = false;

  /** @param beforeJoin holds back the request to join a group until it resolves; never rejects. (2) */
  constructor(
    { library, clientId, servers, security, write, reach }: LinkOptions,
    retry: RetryOptions,
    beforeJoin?: () => Promise<void>,
  ) {
    this.#beforeJoin = beforeJoin;
    this.#reach = reach;
    this.kafka = new library.Kafka({
      clientId,
      ...security,
      // Without brokers the library gives up instead of trying the next one. (1)
      brokers: () => (this.#isCut ? [] : [...servers]),
      connectionTimeout: connectionTimeoutMs,
      requestTimeout: requestTimeoutMs,
      retry,
      socketFactory: (target) => this.#open(target),
      logCreator: () => (entry) => {
        if (!this.#isCut) write(entry);
      },
    });
  }

  /** Since when no broker is connected; undefined while one is. */
  get unreachableSince(): Date | undefined {
    return this.#unreachableSince;
  }

  /** Closes every socket at once, for good. Idempotent. (1) */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy(new Error("the event bus is closed"));
  }

  #open({ host, port, ssl, onConnect }: ISocketFactoryArgs): Socket {
    if (this.#isCut) throw new Error("the event bus is closed");
    const isSecure = Boolean(ssl);
    const socket: Socket = isSecure
      ? connectTls({ host, port, ...(isIP(host) === 0 && { servername: host }), ...ssl }, onConnect)
      : connectTcp({ host, port }, onConnect);
    socket.setKeepAlive(true, keepAliveMs);
    if (this.#beforeJoin !== undefined) holdJoins(socket, this.#beforeJoin);
    this.#sockets.add(socket);
    let hasAnswered = false;
    let why = "no answer";
    socket.once("error", (error) => (why = messageOf(error)));
    socket.once("data", () => {
      hasAnswered = true;
      this.#reach.answered(socket);
    });
    socket.once(isSecure ? "secureConnect" : "connect", () => {
      this.#connected.add(socket);
      this.#unreachableSince = undefined;
    });
    socket.once("close", () => {
      this.#sockets.delete(socket);
      this.#reach.closed(socket);
      if (!hasAnswered && !this.#isCut) this.#reach.refused(`${host}:${port}: ${why}`);
      if (this.#connected.delete(socket) && this.#connected.size === 0) this.#unreachableSince = new Date();
    });
    return socket;
  }
}

/** (2) */
function holdJoins(socket: Socket, beforeJoin: () => Promise<void>): void {
  const write = socket.write.bind(socket) as (...args: unknown[]) => boolean;
  socket.write = (...args: unknown[]): boolean => {
    const [data] = args;
    // The library writes each request in one piece: its size in 4 bytes, then its number in 2.
    const isJoin = Buffer.isBuffer(data) && data.length > 6 && data.readInt16BE(4) === joinGroup;
    if (!isJoin) return write(...args);
    void beforeJoin().then(() => write(...args));
    return true;
  };
}

/** One line for a text in this time: while brokers are away the library repeats itself many times a second. */
const repeatAfterMs = 30_000;

/** Takes the library's lines, without stacks: its errors and warnings as warnings, now and then; the rest for debugging. */
export function libraryLog(log: Logger): (entry: LogEntry) => void {
  const last = new Map<string, number>();
  return ({ label, log: { message, broker, groupId, topic, error } }) => {
    const fields = {
      client: "kafkajs",
      ...(broker !== undefined && { broker: broker as unknown }),
      ...(groupId !== undefined && { group: groupId as unknown }),
      ...(topic !== undefined && { topic: topic as unknown }),
      ...(typeof error === "string" && { error }),
    };
    // What a broker answered is judged, and told, by whoever asked.
    const isNoteworthy = (label === "ERROR" || label === "WARN") && !message.startsWith("Response ");
    const now = performance.now();
    if (!isNoteworthy || now - (last.get(message) ?? -Infinity) < repeatAfterMs) {
      log.debug(fields, `Kafka: ${message}`);
      return;
    }
    if (last.size > 100) last.clear();
    last.set(message, now);
    log.warn(fields, `Kafka: ${message}`);
  };
}
