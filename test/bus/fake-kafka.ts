/** A Kafka library whose one topic `t` has one partition, driven by hand: for answers that real brokers rarely give. */
import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import type { KafkaConfig } from "kafkajs";
import { onTestFinished } from "vitest";
import type { Library, LinkOptions } from "../../src/bus/kafka-link.ts";
import { KafkaReach } from "../../src/bus/kafka-reach.ts";
import { KafkaTopics } from "../../src/bus/kafka-topics.ts";
import { silentLogger } from "../../src/core/log.ts";

interface Commit {
  readonly offset: string;
  readonly metadata: string;
}

interface ConsumerOptions {
  readonly partitionAssigners: readonly ((parts: { readonly cluster: unknown }) => unknown)[];
}

/** What the library's connections take. */
interface Exchange {
  readonly request: { encode(): Promise<{ readonly buf: Buffer }> };
  readonly response: { decode(payload: Buffer): Promise<unknown>; parse(data: unknown): Promise<unknown> };
}

export class FakeKafka {
  /** What the group has committed. */
  committed = 0;
  /** What was committed with it. */
  note = "";
  /** Of the topic; `""` where the broker does not tell it. */
  topicId = "0a".repeat(16);
  /** What the broker says of the topic. */
  topicCode = 0;
  /** The newest form of the question about topics that the broker knows. */
  metadataVersion = 12;
  /** Whether the library shows its brokers to whoever shares partitions out. */
  showsBrokers = true;
  /** The broker's whole answer about the topic. */
  topicAnswer = (topic: string): Buffer => this.#topicAnswer(topic);
  /** Each attempt to commit; throws to refuse it. */
  onCommit: (offset: number) => void = () => undefined;
  /** Each of the admin's questions may be answered otherwise. */
  readonly admin: Record<string, () => Promise<unknown>> = {};
  readonly seeks: number[] = [];
  /** How often reading was let go on. */
  resumed = 0;
  readonly link: LinkOptions;
  readonly topics: KafkaTopics;
  #listeners: Record<string, (event: unknown) => void> = {};
  #eachBatch: (payload: unknown) => Promise<void> = () => Promise.resolve();
  #config: KafkaConfig | undefined;

  constructor() {
    const library = {
      Kafka: kafkaOf(
        () => this.#admin(),
        (options, config) => this.#consumer(options, config),
      ),
      AssignerProtocol: { MemberAssignment: {}, MemberMetadata: {} },
    } as unknown as Library;
    const reach = new KafkaReach(silentLogger);
    this.link = {
      library,
      clientId: "test",
      servers: ["127.0.0.1:9"],
      security: {},
      write: () => undefined,
      reach,
    };
    this.topics = new KafkaTopics(this.link, silentLogger);
    onTestFinished(() => this.topics.close());
  }

  /** The member is given the partition: for the first time, or anew. */
  join(): void {
    this.#listeners["consumer.group_join"]?.({ payload: { memberId: "m", memberAssignment: { t: [0] } } });
  }

  /** The library sends the member's request to join its group anew; resolves when the broker has it. */
  async askToJoin(): Promise<void> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const arriving = once(server, "connection");
    const socket = this.#config!.socketFactory!({
      host: "127.0.0.1",
      port,
      ssl: undefined as never,
      onConnect: () => undefined,
    });
    const [connection] = (await arriving) as [Socket];
    onTestFinished(() => {
      socket.destroy();
      connection.destroy();
      server.close();
    });
    // Its size, then its number.
    socket.write(Buffer.from([0, 0, 0, 4, 0, 11, 0, 0]));
    await once(connection, "data");
  }

  /** The library gives up. */
  crash(error: Error): void {
    this.#listeners["consumer.crash"]?.({ payload: { error } });
  }

  async read(from: number, to: number, value = Buffer.from("x")): Promise<void> {
    const offsets = Array.from({ length: to - from + 1 }, (_, index) => String(from + index));
    await this.#eachBatch({
      batch: {
        topic: "t",
        partition: 0,
        highWatermark: String(to + 1),
        lastOffset: () => String(to),
        messages: offsets.map((offset) => ({
          key: Buffer.from(`k${offset}`),
          value,
          offset,
          timestamp: "1",
        })),
      },
      isStale: () => false,
      resolveOffset: () => undefined,
      commitOffsetsIfNecessary: ({ topics }: { topics: { partitions: Commit[] }[] }) =>
        this.#commit(topics[0]!.partitions[0]!),
    });
  }

  async #commit({ offset, metadata }: Commit): Promise<void> {
    await Promise.resolve();
    this.onCommit(Number(offset));
    this.committed = Number(offset);
    this.note = metadata;
  }

  #admin(): unknown {
    const answers: Record<string, () => Promise<unknown>> = {
      connect: () => Promise.resolve(),
      fetchTopicMetadata: () => Promise.resolve({ topics: [{ partitions: [{ partitionId: 0 }] }] }),
      fetchTopicOffsets: () => Promise.resolve([{ partition: 0, low: "0", high: "0" }]),
      fetchOffsets: () =>
        Promise.resolve([
          {
            topic: "t",
            partitions: [{ partition: 0, offset: String(this.committed), metadata: this.note }],
          },
        ]),
    };
    const ask = (question: string): (() => Promise<unknown>) => {
      return () => (this.admin[question] ?? answers[question] ?? Promise.resolve.bind(Promise))();
    };
    const questions = [...Object.keys(answers), "createTopics", "describeCluster"];
    return Object.fromEntries(questions.map((question) => [question, ask(question)]));
  }

  /** The library's view of its brokers, as far as it is used. */
  #cluster(): unknown {
    const send = async ({ request, response }: Exchange): Promise<unknown> => {
      const { buf } = await request.encode();
      // Before the name: the header's end, the number of topics, an id, the name's length.
      const topic = buf.subarray(19, 18 + buf.readUInt8(18)).toString();
      return await response.parse(await response.decode(this.topicAnswer(topic)));
    };
    const versions = { 3: { minVersion: 0, maxVersion: this.metadataVersion } };
    return {
      connect: () => Promise.resolve(),
      findGroupCoordinator: () => Promise.resolve({ leaveGroup: () => Promise.resolve() }),
      brokerPool: { seedBroker: { versions, connectionPool: { send } } },
    };
  }

  /** Version 10 of the protocol's answer. */
  #topicAnswer(topic: string): Buffer {
    const code = topic === "t" ? this.topicCode : 3;
    const id = code === 0 ? this.topicId : "";
    return Buffer.concat([
      // The header's end; no throttling; one broker with its id, host, port, no rack; the cluster; its controller.
      Buffer.from([0, 0, 0, 0, 0, 2, 0, 0, 0, 1]),
      compact("127.0.0.1"),
      Buffer.from([0, 0, 0, 9, 0, 0]),
      compact("cluster"),
      Buffer.from([0, 0, 0, 1]),
      // One topic with its code, name and id; it is not internal; no partitions; no permissions; the end.
      Buffer.from([2, 0, code]),
      compact(topic),
      Buffer.from(id.padEnd(32, "0"), "hex"),
      Buffer.from([0, 1, 0x80, 0, 0, 0, 0, 0x80, 0, 0, 0, 0]),
    ]);
  }

  #consumer({ partitionAssigners }: ConsumerOptions, config: KafkaConfig): unknown {
    this.#config = config;
    // As the library does: at once.
    if (this.showsBrokers) for (const assigner of partitionAssigners) assigner({ cluster: this.#cluster() });
    return {
      on: (name: string, listener: (event: unknown) => void) => (this.#listeners[name] = listener),
      connect: () => Promise.resolve(),
      subscribe: () => Promise.resolve(),
      seek: ({ offset }: { offset: string }) => this.seeks.push(Number(offset)),
      pause: () => undefined,
      resume: () => (this.resumed += 1),
      disconnect: () => Promise.resolve(),
      run: ({ eachBatch }: { eachBatch: (payload: unknown) => Promise<void> }) => {
        this.#eachBatch = eachBatch;
        this.join();
        return Promise.resolve();
      },
    };
  }
}

/** A short text of the protocol. */
const compact = (text: string): Buffer => Buffer.from([text.length + 1, ...Buffer.from(text)]);

function kafkaOf(
  admin: () => unknown,
  consumer: (options: ConsumerOptions, config: KafkaConfig) => unknown,
): unknown {
  return class {
    readonly admin = admin;
    readonly consumer: (options: ConsumerOptions) => unknown;

    constructor(config: KafkaConfig) {
      this.consumer = (options) => consumer(options, config);
    }
  };
}
