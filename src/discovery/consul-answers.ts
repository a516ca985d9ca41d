/**
 * Consul's answers as far as they are used, each parsed once. Unknown members are left alone. Pure.
 *
 * Two of them list thousands of services: those are looked through by hand, which takes a twentieth of the time.
 */
import { z } from "zod";
import { isObject } from "../core/json.ts";

const texts = z
  .array(z.string())
  .nullish()
  .transform((list) => list ?? []);
const index = z.int().min(0);

/** Names with the tags of all their instances. */
export const servicesAnswer = z.custom<Readonly<Record<string, readonly string[]>>>(
  (value) => isObject(value) && Object.values(value).every(isTexts),
  "expected names with lists of tags",
);

const isTexts = (value: unknown): boolean =>
  Array.isArray(value) && value.every((item) => typeof item === "string");

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

export const checksAnswer = z.array(check);

export const instancesAnswer = z.array(
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
      Meta: z
        .record(z.string(), z.string())
        .nullish()
        .transform((meta) => meta ?? {}),
      Weights: z.object({ Passing: z.number() }).nullish(),
      ModifyIndex: index,
    }),
    Checks: checksAnswer.nullish().transform((checks) => checks ?? []),
  }),
);

export const nodesAnswer = z.array(
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
  .record(
    z.string(),
    z.object({
      ID: z.string(),
      Service: z.string(),
      Tags: texts,
      Meta: z
        .record(z.string(), z.string())
        .nullish()
        .transform((meta) => meta ?? {}),
    }),
  )
  .transform((services) => Object.values(services));

/** The package decodes the values; of a key that is not there nothing is left. */
export const keysAnswer = z
  .array(
    z.object({
      Key: z.string(),
      Value: z.instanceof(Uint8Array).nullable(),
      ModifyIndex: index,
    }),
  )
  .optional()
  .transform((rows) =>
    (rows ?? []).map(({ Key, Value, ModifyIndex }): ConsulKey => ({
      key: Key,
      value: Value ?? new Uint8Array(),
      modifyIndex: ModifyIndex,
    })),
  );

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
