/**
 * Which partition a message goes to. Owns: the hash of a key, the same as that of Kafka's own clients. Does not own:
 * messages without a key, which the library shares out.
 *
 * 1. A key costs time in proportion to its length. The library's own hash takes the square of it, 25 s for 1 MB, in
 *    which the process does nothing else; and keys come from outside.
 */
import type { ICustomPartitioner } from "kafkajs";

/** @param withoutKey shares out what has no key */
export const partitioner =
  (withoutKey: ICustomPartitioner): ICustomPartitioner =>
  () => {
    const share = withoutKey();
    return (args) => {
      const { key } = args.message;
      if (key === null || key === undefined) return share(args);
      const hash = murmur2(typeof key === "string" ? Buffer.from(key) : key);
      return (hash & 0x7fffffff) % args.partitionMetadata.length;
    };
  };

const multiplier = 0x5bd1e995;
const seed = 0x9747b28c;

/** MurmurHash2, 32 bits. (1) */
function murmur2(data: Buffer): number {
  const whole = data.length - (data.length % 4);
  let hash = seed ^ data.length;
  for (let at = 0; at < whole; at += 4) {
    const word = Math.imul(data.readInt32LE(at), multiplier);
    hash = Math.imul(hash, multiplier) ^ Math.imul(word ^ (word >>> 24), multiplier);
  }
  if (whole < data.length) {
    for (let at = whole; at < data.length; at += 1) hash ^= (data[at] ?? 0) << (8 * (at - whole));
    hash = Math.imul(hash, multiplier);
  }
  hash = Math.imul(hash ^ (hash >>> 13), multiplier);
  return hash ^ (hash >>> 15);
}
