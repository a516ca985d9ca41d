/** What one source states about one instance of a service. Data only; `service.ts` folds statements into tools. */
import type { JsonSchema, OnexExecution, RestExecution, ToolAnnotations, ToolIcon } from "./tool.ts";

/** How a service is called; where is its instances' to say. */
export type ServiceExecution = Omit<OnexExecution, "endpoints" | "service"> | RestExecution;

/** What a source says of the tool; what it is silent on is absent, and taken from the source next in precedence. */
export interface InstanceDefinition {
  readonly title?: string;
  readonly description?: string;
  /** `node_version`. */
  readonly version?: string;
  /** Normalised. */
  readonly inputSchema?: JsonSchema;
  readonly outputSchema?: JsonSchema;
  readonly annotations?: ToolAnnotations;
  readonly icons?: readonly ToolIcon[];
  readonly tags?: readonly string[];
  readonly timeoutSeconds?: number;
  readonly execution?: ServiceExecution;
}

/** Whether the instance serves a tool, and under which name; or why it does not. */
export type Claim = { readonly toolName: string } | { readonly refused: string };

/** One source's statement about one instance of a service. Statements about one `serviceId` are about one instance. */
export interface Instance {
  readonly source: "event" | "consul";
  readonly serviceId: string;
  /** Absent: the source does not know. */
  readonly serviceName?: string;
  /** Absent: the source does not know. */
  readonly claim?: Claim;
  readonly definition: InstanceDefinition;
  /** Absolute base URL. Absent: the source does not know. */
  readonly url?: string;
  /** Default 1. */
  readonly weight?: number;
  /** Consul: its checks pass and it is not in maintenance. Event: true, a gone instance has no record. */
  readonly live: boolean;
  /** Why it is not live. */
  readonly down?: string;
  /** Consul's ModifyIndex of the registration. */
  readonly index?: number;
}
