/**
 * Who of a consumer group reads which partitions. Owns: the group protocol that all our members speak. Does not own:
 * what a member does with its partitions (`kafka-consumer.ts`).
 *
 * 1. A topic's partitions go to members that read this topic; the library's own protocol gives them to all, as if every
 *    member of a group read the same topics.
 * 2. Every partition has one member, and members of one topic differ by at most one partition.
 * 3. Within (2) a member keeps what it has: each move makes running messages run again elsewhere.
 */
import type { Assigner, Cluster, PartitionAssigner } from "kafkajs";
import type { Library } from "./kafka-link.ts";

export interface Sharer {
  readonly id: string;
  readonly owned: readonly number[];
}

const name = "onex-sticky";
const version = 1;

export interface AssignerParts {
  readonly library: Library;
  /** The partitions that this member has. */
  readonly owned: () => readonly number[];
  /** Those of a topic, of which the member itself may know nothing; none where it is absent. */
  readonly partitionsOf: (topic: string) => Promise<readonly number[]>;
  /** Is told the library's view of the brokers, which it shows to no one else. */
  readonly onCluster: (cluster: Cluster) => void;
}

export function stickyAssigner({
  library,
  owned,
  partitionsOf,
  onCluster,
}: AssignerParts): PartitionAssigner {
  const { MemberAssignment, MemberMetadata } = library.AssignerProtocol;
  const assigner = (): Assigner => ({
    name,
    version,
    protocol: ({ topics }) => ({
      name,
      metadata: MemberMetadata.encode({ version, topics, userData: Buffer.from(JSON.stringify(owned())) }),
    }),
    async assign({ members }) {
      const readers = new Map<string, Sharer[]>();
      for (const { memberId, memberMetadata } of members) {
        const decoded = MemberMetadata.decode(memberMetadata);
        for (const topic of decoded?.topics ?? []) {
          const sharer = { id: memberId, owned: partitionsIn(decoded?.userData) };
          readers.set(topic, [...(readers.get(topic) ?? []), sharer]);
        }
      }
      const assignment = new Map(members.map(({ memberId }) => [memberId, new Map<string, number[]>()]));
      for (const [topic, sharers] of readers) {
        const shares = sharePartitions(await partitionsOf(topic), sharers);
        for (const [id, partitions] of shares) assignment.get(id)?.set(topic, partitions);
      }
      return [...assignment].map(([memberId, topics]) => ({
        memberId,
        memberAssignment: MemberAssignment.encode({
          version,
          assignment: Object.fromEntries(topics),
          userData: Buffer.alloc(0),
        }),
      }));
    },
  });
  return ({ cluster }) => {
    onCluster(cluster);
    return assigner();
  };
}

/** By member. (2) (3) */
export function sharePartitions(
  partitions: readonly number[],
  sharers: readonly Sharer[],
): ReadonlyMap<string, number[]> {
  const inOrder = sharers.toSorted((a, b) => b.owned.length - a.owned.length || (a.id < b.id ? -1 : 1));
  const shares = new Map(inOrder.map(({ id }) => [id, [] as number[]]));
  if (inOrder.length === 0) return shares;
  const free = new Set(partitions);
  const least = Math.floor(partitions.length / inOrder.length);
  let larger = partitions.length % inOrder.length;
  for (const { id, owned } of inOrder) {
    const kept = [...new Set(owned)]
      .filter((partition) => free.has(partition))
      .slice(0, larger > 0 ? least + 1 : least);
    if (kept.length > least) larger -= 1;
    for (const partition of kept) free.delete(partition);
    shares.get(id)?.push(...kept);
  }
  for (const partition of free) {
    const [fewest] = [...shares.values()].sort((a, b) => a.length - b.length);
    fewest?.push(partition);
  }
  return shares;
}

function partitionsIn(userData: Uint8Array | undefined): number[] {
  try {
    const value: unknown = JSON.parse(Buffer.from(userData ?? []).toString());
    return Array.isArray(value) ? value.filter((item): item is number => Number.isSafeInteger(item)) : [];
  } catch {
    return [];
  }
}
