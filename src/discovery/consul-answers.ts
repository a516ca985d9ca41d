/**
 * Consul's answers as far as they are used, each parsed once. Unknown members are left alone. Pure.
 *
 * 1. Two of them list thousands of services: those are looked through by hand, which takes a twentieth of the time.
 * 2. The first thing that is wrong ends the look: a list of all that is wrong with millions of rows would fill the memory.
 */
import { z } from "zod";
import { isObject } from "../core/json.ts";

const isTexts = (value: unknown): boolean =>
  Array.isArray(value) && value.every((item) => typeof item === "string");

const texts = z
  .custom<readonly string[]>(isTexts, "expected a list of texts")
  .nullish()
  .transform((list) => list ?? []);
const index = z.int().min(0);
const meta = z
  .custom<Readonly<Record<string, string>>>(
    (value) => isObject(value) && Object.values(value).every((item) => typeof item === "string"),
    "expected keys with texts",
  )
  .nullish()
  .transform((given) => given ?? {});

/** A list of these. (2) */
function rows<T>(row: z.ZodType<T>): z.ZodType<readonly T[]> {
  return z
    .custom<readonly unknown[]>(Array.isArray, "expected a list")
    .transform((list, context): readonly T[] => {
      const read: T[] = [];
      for (const [at, item] of list.entries()) {
        const parsed = row.safeParse(item);
        if (!parsed.success) {
          const [issue] = parsed.error.issues;
          context.addIssue({ code: "custom", message: issue?.message, path: [at, ...(issue?.path ?? [])] });
          return z.NEVER;
        }
        read.push(parsed.data);
      }
      return read;
    });
}

/** Names with the tags of all their instances. */
export const servicesAnswer = z.custom<Readonly<Record<string, readonly string[]>>>(
  (value) => isObject(value) && Object.values(value).every(isTexts),
  "expected names with lists of tags",
);

const check = z.object({
  Node: z.string(),
  CheckID: z.string(),
  Name: z.string().default(""),
  Status: z.string(),
  Notes: z.string().default(""),
  /** Empty: the check is the node's. */
  ServiceID: z.string().default(""),
  ServiceName: z.string().default(""),
  ServiceTags: texts,
  ModifyIndex: index.default(0),
});

export const checksAnswer = rows(check);

export const instancesAnswer = rows(
  z.object({
    Node: z.object({ Node: z.string(), Address: z.string().default(""), ModifyIndex: index.default(0) }),
    Service: z.object({
      ID: z.string(),
      Service: z.string(),
      /** Of a proxy or a gateway; they have the tags of the service they stand before. */
      Kind: z.string().default(""),
      Tags: texts,
      Address: z.string().default(""),
      Port: z.int().default(0),
      Meta: meta,
      Weights: z.object({ Passing: z.number() }).nullish(),
      ModifyIndex: index,
    }),
    Checks: checksAnswer.nullish().transform((checks) => checks ?? []),
  }),
);

export const nodesAnswer = rows(
  z.object({ Node: z.string(), Address: z.string().default(""), ModifyIndex: index.default(0) }),
);

export interface ConsulNodeService {
  readonly ID: string;
  readonly Service: string;
  readonly ModifyIndex: number;
}

/** What is registered at a node; null: Consul knows no such node. */
export const nodeServicesAnswer = z
  .custom<{ readonly Services?: Readonly<Record<string, ConsulNodeService>> | null } | null>(
    (value) =>
      value === null ||
      (isObject(value) && (value.Services == null || Object.values(value.Services).every(isNodeService))),
    "expected a node with its services",
  )
  .transform((value): readonly ConsulNodeService[] => Object.values(value?.Services ?? {}));

const isNodeService = (value: unknown): boolean =>
  isObject(value) &&
  typeof value.ID === "string" &&
  typeof value.Service === "string" &&
  typeof value.ModifyIndex === "number";

/** What is registered at the agent itself. */
export const agentServicesAnswer = z
  .custom<Readonly<Record<string, unknown>>>(isObject, "expected services by their id")
  .transform((services): unknown => Object.values(services))
  .pipe(rows(z.object({ ID: z.string(), Service: z.string(), Tags: texts, Meta: meta })));

/** Keys; undefined where there is none. */
export const keysAnswer = rows(
  z
    .object({
      Key: z.string(),
      /** Null: it is empty. */
      Value: z.string().refine(isBase64, "expected Base64").nullable(),
      ModifyIndex: index,
    })
    .transform(({ Key, Value, ModifyIndex }): ConsulKey => ({
      key: Key,
      value: Buffer.from(Value ?? "", "base64"),
      modifyIndex: ModifyIndex,
    })),
)
  .optional()
  .transform((keys) => keys ?? []);

/** Node leaves out what is no Base64; a regular expression would exhaust the stack. */
function isBase64(text: string): boolean {
  return text.length % 4 === 0 && Buffer.from(text, "base64").length === Buffer.byteLength(text, "base64");
}

export interface ConsulKey {
  readonly key: string;
  /** As it is stored: usually UTF-8 text. */
  readonly value: Uint8Array;
  readonly modifyIndex: number;
}

export type ConsulServices = z.infer<typeof servicesAnswer>;
export type ConsulCheck = z.infer<typeof check>;
export type ConsulInstance = z.infer<typeof instancesAnswer>[number];
export type ConsulNode = z.infer<typeof nodesAnswer>[number];
export type ConsulAgentService = z.infer<typeof agentServicesAnswer>[number];
