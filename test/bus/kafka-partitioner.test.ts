import * as fc from "fast-check";
import { Partitioners, type PartitionMetadata, type PartitionerArgs } from "kafkajs";
import { expect, test } from "vitest";
import { partitioner } from "../../src/bus/kafka-partitioner.ts";

const ours = partitioner(Partitioners.DefaultPartitioner)();
const librarys = Partitioners.DefaultPartitioner();

function args(key: string | Buffer | null, partitions: number): PartitionerArgs {
  const partitionMetadata = Array.from({ length: partitions }, (_, partitionId): PartitionMetadata => ({
    partitionId,
    leader: 1,
    replicas: [1],
    isr: [1],
    partitionErrorCode: 0,
  }));
  return { topic: "t", partitionMetadata, message: { key, value: null } };
}

test("a key goes to the partition that the library, and with it every client of Kafka, gives it", () => {
  const key = fc.oneof(
    fc.string({ unit: "binary", maxLength: 50 }),
    fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes)),
  );
  fc.assert(
    fc.property(key, fc.integer({ min: 1, max: 1000 }), (each, partitions) => {
      expect(ours(args(each, partitions))).toBe(librarys(args(each, partitions)));
    }),
    { numRuns: 500 },
  );
});

test("messages without a key are shared out over all partitions", () => {
  const chosen = Array.from({ length: 20 }, () => ours(args(null, 5)));
  expect(new Set(chosen)).toEqual(new Set([0, 1, 2, 3, 4]));
});
