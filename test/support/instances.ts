/** Statements about instances of services, as Consul and events make them. */
import type { Instance, InstanceDefinition } from "../../src/tools/instance.ts";
import type { InstanceRecord } from "../../src/tools/source.ts";

type Changes = Partial<Omit<Instance, "source" | "definition" | "claim">> & {
  readonly tool?: string;
  readonly refused?: string;
  /** Neither a tool nor a refusal is stated. */
  readonly silent?: boolean;
  readonly definition?: InstanceDefinition;
};

function instance(source: Instance["source"], serviceId: string, changes: Changes): Instance {
  const { tool = "orders", refused, silent = false, definition = {}, ...rest } = changes;
  return {
    source,
    serviceId,
    serviceName: "orders",
    live: true,
    url: `http://${serviceId}.test:8080`,
    definition,
    ...(!silent && { claim: refused === undefined ? { toolName: tool } : { refused } }),
    ...rest,
  };
}

/** What Consul says of one instance; the tool and the service are `orders` unless told otherwise. */
export const consulRecord = (serviceId: string, changes: Changes = {}): InstanceRecord => ({
  key: `node-1/${serviceId}`,
  instance: instance("consul", serviceId, { index: 1, ...changes }),
});

/** What a registration event says of one instance. */
export const eventRecord = (serviceId: string, changes: Changes = {}): InstanceRecord => ({
  key: serviceId,
  instance: instance("event", serviceId, changes),
});
