/**
 * Who claims which name. Owns: the statements about instances, what they come to for each service, and the claims of each
 * name. Does not own: who of several is served (`precedence.ts`), how statements become a tool (`service.ts`).
 *
 * 1. Statements about one service id are merged across sources; within a source the last one counts.
 * 2. What is kept for a name or a service depends on the statements held now and on nothing before.
 * 3. A contract that names no address is served by the live instances of a service: the one that it names, else the first
 *    in precedence that claims the same name. That service has no claim of its own then. What a tag keeps out has no part
 *    in it.
 */
import type { Clock } from "../core/clock.ts";
import type { Instance } from "./instance.ts";
import { byteOrder } from "./name-order.ts";
import { byPrecedence, refusedByTags, type TagFilter } from "./precedence.ts";
import { mergeStatements, serviceTool, withEndpoints, type MergedInstance } from "./service.ts";
import { Suppressions } from "./suppression.ts";
import type { Tool } from "./tool.ts";

interface Statement {
  readonly key: string;
  readonly instance: Instance;
}

interface Statements {
  /** By record. */
  readonly event: Map<string, Statement>;
  readonly consul: Map<string, Statement>;
}

/** The instances of one service that serve one name, and the tool that they make. */
interface Service {
  readonly instances: Map<string, MergedInstance>;
  tool: Tool | undefined;
  changed: boolean;
}

export class Claims {
  readonly #filter: TagFilter;
  readonly #statements = new Map<string, Statements>();
  readonly #merged = new Map<string, readonly MergedInstance[]>();
  /** By tool name, then by service name. */
  readonly #services = new Map<string, Map<string, Service>>();
  /** Whole tools, by name. */
  readonly #whole = new Map<string, readonly Tool[]>();
  /** Tools of contracts without an address of their own, with their endpoints; by the contract's tool. */
  readonly #bound = new WeakMap<Tool, Tool>();
  /** Instances that serve no tool. */
  readonly #refused = new Map<string, readonly MergedInstance[]>();
  #refusedChanged = false;
  readonly #staleIds = new Set<string>();
  readonly #staleNames = new Set<string>();
  readonly suppressions: Suppressions;

  /** @param filter which instances count at all */
  constructor(filter: TagFilter, clock: Clock) {
    this.#filter = filter;
    this.suppressions = new Suppressions(clock);
  }

  addTool(tool: Tool): void {
    this.#whole.set(tool.name, [...(this.#whole.get(tool.name) ?? []), tool]);
    this.#staleNames.add(tool.name);
  }

  removeTool(tool: Tool): void {
    const tools = this.#whole.get(tool.name) ?? [];
    const others = tools.toSpliced(tools.indexOf(tool), 1);
    if (others.length === 0) this.#whole.delete(tool.name);
    else this.#whole.set(tool.name, others);
    this.#staleNames.add(tool.name);
  }

  /** @param record unique among all sources */
  addInstance(record: string, key: string, instance: Instance): void {
    const { serviceId, source } = instance;
    let statements = this.#statements.get(serviceId);
    if (statements === undefined) {
      statements = { event: new Map(), consul: new Map() };
      this.#statements.set(serviceId, statements);
    }
    statements[source].set(record, { key, instance });
    if (source === "event") this.suppressions.end(serviceId);
    this.#staleIds.add(serviceId);
  }

  removeInstance(record: string, { serviceId, source }: Instance): void {
    const statements = this.#statements.get(serviceId);
    if (statements === undefined) return;
    statements[source].delete(record);
    if (statements.event.size + statements.consul.size === 0) this.#statements.delete(serviceId);
    this.#staleIds.add(serviceId);
  }

  suppress(serviceId: string): void {
    this.suppressions.begin(serviceId, indexOf(this.#statements.get(serviceId)));
    this.#staleIds.add(serviceId);
  }

  /** Instances whose suppression has ended count again. */
  endSuppressions(): void {
    for (const serviceId of this.suppressions.takeEnded()) this.#staleIds.add(serviceId);
  }

  /** The names whose claims may have changed since this was asked last. */
  takeStale(): ReadonlySet<string> {
    for (const serviceId of this.#staleIds) this.#mergeAnew(serviceId);
    this.#staleIds.clear();
    const names = new Set(this.#staleNames);
    this.#staleNames.clear();
    return names;
  }

  /** All tools that claim the name. (3) */
  of(name: string): readonly Tool[] {
    const services = this.#serviceTools(name);
    const whole = this.#whole.get(name) ?? [];
    const taken = new Set<string>();
    const tools = whole.map((tool) => {
      if (!isWithoutAddress(tool)) return tool;
      const service = this.#serviceFor(tool, services);
      if (service === undefined) return this.#bind(tool, []);
      taken.add(service);
      return this.#bind(tool, this.#passing(this.instancesOf(name, service)));
    });
    return [...tools, ...services.filter(({ owner }) => !taken.has(owner))];
  }

  /** What the statements about this service come to for this name. */
  instancesOf(name: string, service: string): readonly MergedInstance[] {
    return [...(this.#services.get(name)?.get(service)?.instances.values() ?? [])];
  }

  /** What the statements about one service id come to. */
  merged(serviceId: string): readonly MergedInstance[] {
    return this.#merged.get(serviceId) ?? [];
  }

  /** Instances that are reported by some source and serve no tool. */
  get refused(): readonly MergedInstance[] {
    return [...this.#refused.values()].flat();
  }

  /** Whether `refused` may have changed since this was asked last. */
  takeRefusedChanged(): boolean {
    const changed = this.#refusedChanged;
    this.#refusedChanged = false;
    return changed;
  }

  #mergeAnew(serviceId: string): void {
    for (const instance of this.merged(serviceId)) this.#leave(instance);
    const statements = this.#statements.get(serviceId);
    const event = firstByRecord(statements?.event);
    const index = indexOf(statements);
    const isSuppressed = event === undefined && this.suppressions.covers(serviceId, index);
    const merged = mergeStatements(event, isSuppressed ? [] : [...(statements?.consul.values() ?? [])]);
    if (merged.length === 0) this.#merged.delete(serviceId);
    else this.#merged.set(serviceId, merged);
    for (const instance of merged) this.#join(instance);
    const refused = merged.filter(({ toolName }) => toolName === undefined);
    if (refused.length > 0) this.#refused.set(serviceId, refused);
    this.#refusedChanged ||= refused.length > 0 || this.#refused.has(serviceId);
    if (refused.length === 0) this.#refused.delete(serviceId);
  }

  #join(instance: MergedInstance): void {
    const { toolName, serviceName, id } = instance;
    if (toolName === undefined) return;
    const services = this.#services.get(toolName) ?? new Map<string, Service>();
    this.#services.set(toolName, services);
    const service = services.get(serviceName) ?? { instances: new Map(), tool: undefined, changed: true };
    services.set(serviceName, service);
    service.instances.set(id, instance);
    service.changed = true;
    this.#staleNames.add(toolName);
  }

  #leave({ toolName, serviceName, id }: MergedInstance): void {
    if (toolName === undefined) return;
    const service = this.#services.get(toolName)?.get(serviceName);
    if (service === undefined) return;
    service.instances.delete(id);
    service.changed = true;
    this.#staleNames.add(toolName);
  }

  /** Those that no tag keeps out. */
  #passing(instances: readonly MergedInstance[]): readonly MergedInstance[] {
    return instances.filter(({ definition }) => this.#passes(definition.tags));
  }

  #passes(tags: readonly string[] = []): boolean {
    return refusedByTags(tags, this.#filter) === undefined;
  }

  /** The tools of services that claim the name. */
  #serviceTools(name: string): readonly Tool[] {
    const services = this.#services.get(name) ?? new Map<string, Service>();
    const tools: Tool[] = [];
    for (const [serviceName, service] of services) {
      if (service.changed) {
        service.changed = false;
        const instances = [...service.instances.values()];
        const passing = this.#passing(instances);
        // Where no instance passes, the tool is made all the same: it is withheld, with the reason.
        service.tool = serviceTool(name, passing.length > 0 ? passing : instances, service.tool);
      }
      if (service.tool === undefined) services.delete(serviceName);
      else tools.push(service.tool);
    }
    if (services.size === 0) this.#services.delete(name);
    return tools;
  }

  #serviceFor({ execution }: Tool, services: readonly Tool[]): string | undefined {
    const named = execution.kind === "onex" ? execution.service : undefined;
    return services
      .filter(({ owner, tags }) => (named === undefined || owner === named) && this.#passes(tags))
      .sort(byPrecedence)[0]?.owner;
  }

  #bind(tool: Tool, instances: readonly MergedInstance[]): Tool {
    const bound = withEndpoints(tool, instances, this.#bound.get(tool));
    this.#bound.set(tool, bound);
    return bound;
  }
}

const isWithoutAddress = ({ execution }: Tool): boolean =>
  execution.kind === "onex" && execution.endpoints.length === 0;

/** Of statements about one service id that several event sources make, always the same one. (2) */
function firstByRecord(statements: ReadonlyMap<string, Statement> | undefined): Statement | undefined {
  const [first] = [...(statements?.keys() ?? [])].sort(byteOrder);
  return first === undefined ? undefined : statements?.get(first);
}

/** Consul's index of a service: it moves on when any of its registrations does. */
function indexOf(statements: Statements | undefined): number | undefined {
  const indexes = [...(statements?.consul.values() ?? [])].map(({ instance }) => instance.index ?? 0);
  return indexes.length === 0 ? undefined : Math.max(...indexes);
}
