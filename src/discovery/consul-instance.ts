/**
 * From one row of `health/service` to the record of one instance. Owns what tags, meta and checks mean. Pure.
 *
 * 1. Every instance stands for itself: nothing of it is taken from another instance of its service.
 * 2. Only an instance whose checks all pass, its node's among them, is called; a warning does not pass.
 * 3. What cannot be used is in the record, with the reason.
 */
import { isIP } from "node:net";
import { urlHost } from "../core/url-host.ts";
import type { RemoteDefinition } from "../contract/remote.ts";
import type { Claim, Instance, InstanceDefinition, ServiceExecution } from "../tools/instance.ts";
import type { InstanceRecord } from "../tools/source.ts";
import type { ConsulCheck, ConsulInstance } from "./consul-answers.ts";
import { claimOf, enabledTag } from "./tags.ts";

/** Keys of node contracts begin with this. */
export const nodeContractPrefix = "onex/contracts/nodes/";

/** What the key-value store holds for an instance. */
export type InstanceContract =
  | { readonly state: "absent" }
  | { readonly state: "good"; readonly definition: RemoteDefinition }
  | { readonly state: "broken"; readonly reason: string };

/** A proxy says what the service behind it says: that one has a row of its own. */
export const isTagged = ({ Service }: ConsulInstance): boolean =>
  Service.Tags.includes(enabledTag) && Service.Kind === "";

export const recordKey = ({ Node, Service }: ConsulInstance): string => `${Node.Node}/${Service.ID}`;

/** The contract of an instance, and whether the instance itself asks for it; undefined where it serves no tool. */
export function contractKeyOf({
  Service,
}: ConsulInstance): { readonly key: string; readonly isNamed: boolean } | undefined {
  const claim = claimOf(Service.Tags);
  if (!("toolName" in claim)) return undefined;
  const named = Service.Meta["mcp-contract"]?.trim().replace(/^\/+/, "");
  return named === undefined || named === ""
    ? { key: `${nodeContractPrefix}${claim.toolName}`, isNamed: false }
    : { key: named, isNamed: true };
}

export function instanceRecord(row: ConsulInstance, contract: InstanceContract): InstanceRecord {
  const { Service } = row;
  const url = urlOf(row);
  const execution = executionOf(Service.Meta["mcp-execution"]);
  const down = downReason(row.Checks) ?? ("problem" in url ? url.problem : undefined);
  const instance: Instance = {
    source: "consul",
    serviceId: Service.ID,
    serviceName: Service.Service,
    // Without the tag it has nothing to say of tools: it may complete what an event says.
    ...(isTagged(row) && { claim: claimWith(claimOf(Service.Tags), execution, contract) }),
    definition: definitionOf(
      Service.Tags,
      "execution" in execution ? execution.execution : undefined,
      contract,
    ),
    ...("url" in url && { url: url.url }),
    weight: Math.max(1, Math.round(Service.Weights?.Passing ?? 1)),
    live: down === undefined,
    ...(down !== undefined && { down }),
    index: Service.ModifyIndex,
  };
  return { key: recordKey(row), instance };
}

type Execution = { readonly execution?: ServiceExecution } | { readonly problem: string };

function executionOf(kind: string | undefined): Execution {
  if (kind === undefined || kind === "") return {};
  if (kind === "onex") return { execution: { kind: "onex", path: "" } };
  // Without a contract that says more: the arguments as JSON to the instance's URL.
  if (kind === "rest") return { execution: { kind: "rest", method: "POST", url: "" } };
  return { problem: `the meta mcp-execution is ${JSON.stringify(kind)}, expected onex or rest` };
}

function claimWith(claim: Claim, execution: Execution, contract: InstanceContract): Claim {
  if (!("toolName" in claim)) return claim;
  if (contract.state === "broken") return { refused: `the tool ${claim.toolName}: ${contract.reason}` };
  return "problem" in execution ? { refused: `the tool ${claim.toolName}: ${execution.problem}` } : claim;
}

function definitionOf(
  tags: readonly string[],
  execution: ServiceExecution | undefined,
  contract: InstanceContract,
): InstanceDefinition {
  const said = contract.state === "good" ? contract.definition : {};
  return {
    ...(execution !== undefined && { execution }),
    ...said,
    tags: [...new Set([...tags, ...(said.tags ?? [])])],
  };
}

/** Why it is not called, of all reasons the one that an operator gave first. (2) */
function downReason(checks: readonly ConsulCheck[]): string | undefined {
  const failing = checks.filter(({ Status }) => Status !== "passing");
  const node = failing.find(({ CheckID }) => CheckID === "_node_maintenance");
  if (node !== undefined) return `its node is in maintenance: ${node.Notes}`;
  const service = failing.find(({ CheckID }) => CheckID.startsWith("_service_maintenance:"));
  if (service !== undefined) return `it is in maintenance: ${service.Notes}`;
  const [check] = failing;
  if (check === undefined) return undefined;
  const whose = check.ServiceID === "" ? "its node's check" : "its check";
  return `${whose} ${JSON.stringify(check.Name || check.CheckID)} is ${check.Status}`;
}

const hostName =
  /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?$/;

function urlOf({ Node, Service }: ConsulInstance): { readonly url: string } | { readonly problem: string } {
  const wrong = (what: string, value: unknown, expected: string): { readonly problem: string } => ({
    problem: `its ${what} is ${JSON.stringify(value)}, expected ${expected}`,
  });
  const scheme = (Service.Meta["mcp-scheme"] ?? "http").toLowerCase();
  if (scheme !== "http" && scheme !== "https") return wrong("meta mcp-scheme", scheme, "http or https");
  const address = Service.Address === "" ? Node.Address : Service.Address;
  const bare = address.replace(/^\[(.*)\]$/, "$1");
  const isVersion6 = isIP(bare) === 6;
  // A zone names an interface of the machine that registered, not of this one.
  if (!(isVersion6 ? !bare.includes("%") : hostName.test(address)))
    return wrong("address", address, "a name or an IP address");
  if (Service.Port < 1 || Service.Port > 65535) return wrong("port", Service.Port, "1 to 65535");
  const path = Service.Meta["mcp-path"] ?? "";
  if (!/^[^\s?#{}\\]*$/.test(path) || /^\/\//.test(path))
    return wrong("meta mcp-path", path, "a path such as /run");
  const below = path === "" || path.startsWith("/") ? path : `/${path}`;
  const url = `${scheme}://${urlHost(bare)}:${Service.Port}${below.replace(/\/+$/, "")}`;
  return URL.canParse(url) ? { url } : wrong("address", address, "a name or an IP address");
}
