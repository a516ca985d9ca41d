/**
 * Where the calls of a tool go: its targets, each with the plan of a request, the picker over them, and its retry budget.
 * Owns: the plans; when an instance joined. Does not own: breakers and pools (`http.ts`), how one is chosen (`picker.ts`).
 *
 * 1. A plan is made once for each definition of a tool and address, and outlives a change of the other addresses.
 * 2. What is held is of the tools that were called, in the form in which they were called last, and is given up with them.
 * 3. The route of a tool is always that of the present snapshot: a call that waited meets the instances of now.
 */
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../core/clock.ts";
import { OnexError, toOnexError } from "../core/errors.ts";
import { RetryBudget } from "../resilience/retry.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { Tool } from "../tools/tool.ts";
import { Picker } from "./picker.ts";
import { planOf, type Plan } from "./request.ts";
import { Ramp, stillCold } from "./slow-start.ts";
import { originOf } from "./template.ts";

export interface Target {
  /** The origin, by which its breaker and its pool are named; the address as it is where that is not one. */
  readonly key: string;
  readonly weight: number;
  /** Why it cannot be called, where it cannot. */
  readonly plan: Plan | OnexError;
}

/** The targets of one tool in one snapshot. */
export class Route {
  readonly tool: Tool;
  /** Those that can be called; where there is none, all. */
  readonly targets: readonly Target[];
  /** By address. */
  readonly plans: ReadonlyMap<string, Plan | OnexError>;
  readonly budget: RetryBudget;
  /** When each target joined, by its key: those that may not be warm yet. */
  readonly joined: ReadonlyMap<string, number>;
  readonly #clock: Clock;
  readonly #whole: Picker<Target>;
  #ramp: Ramp<Target> | undefined;

  /** @param before the tool's route until now, whoever served it */
  constructor(tool: Tool, before: Route | undefined, clock: Clock) {
    const known = before !== undefined && sameDefinition(before.tool, tool) ? before.plans : none;
    const plans = new Map<string, Plan | OnexError>();
    const targets = addressesOf(tool).map(({ url, weight }): Target => {
      const plan = plans.get(url) ?? known.get(url) ?? tryPlan(tool, url); // (1)
      plans.set(url, plan);
      return { key: originIn(url) ?? url, weight, plan };
    });
    const callable = targets.filter(({ plan }) => !(plan instanceof OnexError));
    this.tool = tool;
    this.plans = plans;
    this.targets = callable.length > 0 ? callable : targets;
    this.budget = before?.budget ?? new RetryBudget();
    this.joined = joinedOf(this.targets, before, clock);
    this.#clock = clock;
    this.#whole = new Picker(this.targets);
    if (this.joined.size > 0) {
      const at = this.targets.flatMap((target) => {
        const joined = this.joined.get(target.key);
        return joined === undefined ? [] : [[target, joined] as const];
      });
      this.#ramp = new Ramp(this.targets, new Map(at));
    }
  }

  /** Over the targets, with the weights that they have now. */
  get picker(): Picker<Target> {
    if (this.#ramp === undefined) return this.#whole;
    const ramped = this.#ramp.pickerAt(this.#clock.now());
    if (ramped === undefined) this.#ramp = undefined;
    return ramped ?? this.#whole;
  }
}

/** Whoever joins others is new; where all are new nobody is. */
function joinedOf(
  targets: readonly Target[],
  before: Route | undefined,
  clock: Clock,
): ReadonlyMap<string, number> {
  if (before === undefined) return noneJoined;
  const known = new Set(before.targets.map(({ key }) => key));
  if (!targets.some(({ key }) => known.has(key))) return noneJoined;
  const now = clock.now();
  const joined = new Map<string, number>();
  for (const { key } of targets) {
    const at = known.has(key) ? before.joined.get(key) : now;
    if (at !== undefined) joined.set(key, at);
  }
  return stillCold(joined, now);
}

const noneJoined: ReadonlyMap<string, number> = new Map();

interface Address {
  readonly url: string;
  readonly weight: number;
}

export class Routes {
  readonly #clock: Clock;
  /** By the tool's name. (2) */
  readonly #routes = new Map<string, Route>();
  readonly #origins = new WeakMap<Tool, readonly string[]>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Tools that a route is held for. */
  get size(): number {
    return this.#routes.size;
  }

  /** The tool's route; undefined where the snapshot has no such tool any more, or one that means something else. (3) */
  of(tool: Tool, snapshot: () => Snapshot): Route | undefined {
    const known = this.#routes.get(tool.name);
    if (known?.tool === tool) return known;
    const present = snapshot().byName.get(tool.name);
    if (present === undefined || !isStandIn(tool, present)) return undefined;
    return known?.tool === present ? known : this.#renew(present, known);
  }

  /** The origins that calls of the tool may go to. */
  originsOf(tool: Tool): readonly string[] {
    let origins = this.#origins.get(tool);
    if (origins === undefined) {
      origins = addressesOf(tool).flatMap(({ url }) => originIn(url) ?? []);
      this.#origins.set(tool, origins);
    }
    return origins;
  }

  /** Gives up what is held for tools that are not in the snapshot, and notes which instances have joined. */
  retain({ byName }: Snapshot): void {
    for (const [name, route] of this.#routes) {
      const tool = byName.get(name);
      if (tool === undefined || !isOverHttp(tool)) this.#routes.delete(name);
      else if (tool !== route.tool) this.#renew(tool, route);
    }
  }

  #renew(tool: Tool, before: Route | undefined): Route {
    const route = new Route(tool, before, this.#clock);
    this.#routes.set(tool.name, route);
    return route;
  }
}

const none: ReadonlyMap<string, Plan | OnexError> = new Map();

function tryPlan(tool: Tool, url: string): Plan | OnexError {
  try {
    return planOf(tool, isWhole(tool) ? undefined : url);
  } catch (error) {
    return toOnexError(error);
  }
}

const isOverHttp = ({ execution: { kind } }: Tool): boolean => kind === "onex" || kind === "rest";

/** Whether the execution itself says where, as a whole URL. */
const isWhole = ({ execution, endpoints }: Tool): boolean =>
  execution.kind === "rest" && endpoints === undefined;

function addressesOf({ execution, endpoints }: Tool): readonly Address[] {
  if (endpoints !== undefined) return endpoints;
  if (execution.kind === "onex") return execution.endpoints.map((url) => ({ url, weight: 1 }));
  return execution.kind === "rest" ? [{ url: execution.url, weight: 1 }] : [];
}

function originIn(url: string): string | undefined {
  try {
    return originOf(url);
  } catch {
    return undefined;
  }
}

/** Revisions are compared only within one source and owner. */
const sameDefinition = (a: Tool, b: Tool): boolean =>
  a.revision === b.revision && a.owner === b.owner && a.source === b.source;

/** Whether a call of `a` may go to the instances of `b`: another state of one service's tool that means the same. */
const isStandIn = (a: Tool, b: Tool): boolean =>
  a === b || (a.owner === b.owner && (sameDefinition(a, b) || isDeepStrictEqual(meaningOf(a), meaningOf(b))));

/** Where it is called is no part of it: endpoints of a contract come and go as instances do. */
const meaningOf = ({ execution, inputSchema, outputSchema }: Tool): readonly unknown[] => [
  execution.kind === "onex" ? { ...execution, endpoints: [] } : execution,
  inputSchema,
  outputSchema,
];
