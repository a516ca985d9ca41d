/**
 * Random histories of a world: what is published, registered and written, which source is out of reach when, when processes
 * start again, how time goes by. Data only, small, and printed as lines that can be read. Does not own: what any of it
 * means (`world.ts`, `reference.ts`).
 */
import fc from "fast-check";

/** What an event or a registration may say; what is absent is not said. */
export interface Saying {
  readonly service?: string;
  /** `none`: its tags lack the name of a tool; `off`: they lack mcp-enabled. */
  readonly tool?: string;
  readonly version?: string;
  /** Which of `schemas`. */
  readonly schema?: number;
  readonly text?: string;
  readonly tag?: string;
  readonly execution?: "onex" | "rest";
}

/** Lanes are partitions: two of one topic and one of another. */
export type Lane = 0 | 1 | 2;

export type Action =
  | {
      readonly do: "announce";
      readonly id: string;
      readonly lane: Lane;
      readonly says: Saying;
      readonly url?: string;
      readonly tags: boolean;
      /** Seconds between emission and publication; undefined: it does not say when it was emitted. */
      readonly late?: number;
    }
  | {
      readonly do: "leave";
      readonly id: string;
      readonly lane: Lane;
      readonly type: "deregistered" | "expired";
      readonly late?: number;
    }
  | { readonly do: "erase"; readonly id: string; readonly lane: Lane }
  | { readonly do: "garble"; readonly id: string; readonly lane: Lane; readonly how: number }
  /** An event is published again, under its id. */
  | { readonly do: "republish"; readonly back: number; readonly lane: Lane }
  | {
      readonly do: "register";
      readonly id: string;
      readonly node: string;
      readonly says: Saying;
      readonly path?: string;
      readonly port: number;
      readonly weight: number;
      readonly contract?: string;
    }
  | { readonly do: "unregister"; readonly id: string; readonly node: string }
  | {
      readonly do: "check";
      readonly id: string;
      readonly node: string;
      readonly to: "passing" | "critical" | "maintenance";
    }
  /** Consul has lost its indexes: they begin anew. */
  | { readonly do: "reset" }
  | { readonly do: "store"; readonly key: string; readonly says: Saying | undefined }
  | {
      readonly do: "write";
      readonly path: string;
      readonly tool: string;
      readonly says: Saying;
      /** `itself`, or on the instances of a service: any, or the named one. */
      readonly on: string;
    }
  | { readonly do: "unlink"; readonly path: string }
  | { readonly do: "code"; readonly tool: string; readonly there: boolean };

/** A time in which sources speak in any order towards each other; then all is quiet, and the clock moves on. */
export interface Epoch {
  /** A restart begins with what the topics still have. */
  readonly begins: "on" | "restart" | "restart, compacted" | "restart, without replay";
  readonly lost: "nothing" | "consul" | "kafka" | "both";
  readonly actions: readonly Action[];
  /** Milliseconds. */
  readonly pass: number;
}

export interface History {
  readonly maxTools: number;
  readonly requiredTags: readonly string[];
  readonly epochs: readonly Epoch[];
}

export const schemas: readonly object[] = [
  { type: "object", properties: { a: { type: "string" }, b: { type: "number" } } },
  { type: "object", properties: { c: { type: "string" } }, required: ["c"] },
  // As the first one, in another order.
  { properties: { b: { type: "number" }, a: { type: "string" } }, type: "object" },
];

const oneOf = <T>(...values: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...values);
const maybe = <T>(arb: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.option(arb, { nil: undefined, freq: 2 });

const id = oneOf("s1", "s2", "s3");
const node = fc.oneof(
  { weight: 4, arbitrary: fc.constant("n1") },
  { weight: 1, arbitrary: fc.constant("n2") },
);
const lane = oneOf<Lane>(0, 1, 2);
const toolName = oneOf("orders", "bills");
const service = oneOf("Zoo", "bar", "ébé");
const contractKeys = ["onex/contracts/nodes/orders", "own/contract"] as const;
const contractPath = oneOf("a/contract.yaml", "b/contract.yaml");
/** Seconds; the last one is more than a tombstone lives. */
const late = maybe(oneOf(0, 1, 2, 25 * 3600));

const definition = {
  version: oneOf("1.0.0", "1.0.0+build", "1.0.0-rc.2", "1.0.0-rc.10", "2.0.0", "10.0.0"),
  schema: fc.nat({ max: schemas.length - 1 }),
  text: oneOf("One.", "Two."),
};
const tag = oneOf("deprecated", "public", "public");
const execution = oneOf<"onex" | "rest">("onex", "rest", "rest");

/** Whatever it may say, each with its own chance. */
const saying = (
  required: (keyof Saying)[],
  own: Record<string, fc.Arbitrary<unknown>>,
): fc.Arbitrary<Saying> => fc.record({ ...definition, ...own }, { requiredKeys: required as never[] });

const claim = {
  service,
  tool: fc.oneof({ weight: 8, arbitrary: toolName }, { weight: 1, arbitrary: oneOf("none", "off") }),
  tag,
  execution,
};

const announce = fc
  .record({
    do: fc.constant("announce" as const),
    id,
    lane,
    says: saying(["service", "tool"], claim),
    url: maybe(oneOf("http://e1.test:9000", "http://e2.test:9000/run/")),
    tags: fc.oneof({ weight: 4, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
    late,
  })
  .map(withoutAbsent);

const register = fc
  .record({
    do: fc.constant("register" as const),
    id,
    node,
    says: saying(["service", "tool"], { service, tool: claim.tool, tag, execution }),
    path: maybe(oneOf("/", "/base", "/base/")),
    port: fc.oneof({ weight: 9, arbitrary: oneOf(8001, 8002) }, { weight: 1, arbitrary: fc.constant(0) }),
    weight: oneOf(1, 1, 3),
    contract: maybe(fc.constant(contractKeys[1])),
  })
  .map(withoutAbsent);

const leave = fc
  .record({ do: fc.constant("leave" as const), id, lane, type: oneOf("deregistered", "expired"), late })
  .map(withoutAbsent);

const others: readonly fc.WeightedArbitrary<unknown>[] = [
  { weight: 2, arbitrary: fc.record({ do: fc.constant("erase"), id, lane }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("garble"), id, lane, how: fc.nat({ max: 5 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("republish"), back: fc.nat({ max: 3 }), lane }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("unregister"), id, node }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("check"),
      id,
      node,
      to: oneOf("critical", "maintenance", "passing"),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("reset") }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("store"),
      key: oneOf(...contractKeys),
      says: maybe(saying([], { tag })),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("write"),
      path: contractPath,
      tool: toolName,
      says: saying([], { tag }),
      on: oneOf("itself", "any", "Zoo", "bar"),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("unlink"), path: contractPath }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("code"), tool: toolName, there: fc.boolean() }) },
];

const action = fc.oneof(
  { weight: 7, arbitrary: announce },
  { weight: 5, arbitrary: register },
  { weight: 4, arbitrary: leave },
  ...others,
) as fc.Arbitrary<Action>;

const hour = 3_600_000;

const epoch: fc.Arbitrary<Epoch> = fc.record({
  begins: fc.oneof(
    { weight: 5, arbitrary: fc.constant("on" as const) },
    { weight: 1, arbitrary: fc.constant("restart" as const) },
    { weight: 1, arbitrary: fc.constant("restart, compacted" as const) },
    { weight: 1, arbitrary: fc.constant("restart, without replay" as const) },
  ),
  lost: fc.oneof(
    { weight: 6, arbitrary: fc.constant("nothing" as const) },
    { weight: 1, arbitrary: oneOf("consul" as const, "kafka" as const, "both" as const) },
  ),
  actions: fc.array(action, { maxLength: 9, size: "max" }),
  pass: oneOf(0, 0, 1_000, 59_999, 60_000, 61_000, 12 * hour, 24 * hour - 1, 24 * hour),
});

/** Small worlds: few names, so that everything has to do with everything. */
export const history: fc.Arbitrary<History> = fc
  .record({
    maxTools: fc.oneof({ weight: 4, arbitrary: fc.constant(100) }, { weight: 1, arbitrary: fc.constant(1) }),
    requiredTags: fc.oneof(
      { weight: 6, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.constant(["public"]) },
    ),
    epochs: fc.array(epoch, { minLength: 1, maxLength: 5, size: "max" }),
  })
  .map(printed);

/** Choices by which the sources' voices are mixed; none: one source after the other. */
export const schedule: fc.Arbitrary<readonly number[]> = fc.array(fc.nat({ max: 999 }), {
  maxLength: 40,
  size: "max",
});

function withoutAbsent<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined)) as T;
}

function printed(value: History): History {
  const text = (): string => {
    const head = `max_tools ${value.maxTools}, required_tags ${JSON.stringify(value.requiredTags)}`;
    return `\n${[head, ...value.epochs.flatMap(linesOf)].map((line) => `    ${line}`).join("\n")}\n  `;
  };
  return Object.assign(value, { [fc.toStringMethod]: text });
}

const linesOf = ({ begins, lost, actions, pass }: Epoch, at: number): readonly string[] => [
  `epoch ${at}: ${begins === "on" ? "goes on" : begins}; out of reach: ${lost}`,
  ...actions.map(({ do: verb, ...rest }) => `  ${verb} ${JSON.stringify(rest)}`),
  `  ${pass} ms pass`,
];
