/**
 * Where the calls of a tool go: its targets, each with the plan of a request, and the picker over them. Owns: the plans.
 * Does not own: breakers and pools (`http.ts`), how one is chosen (`picker.ts`).
 *
 * 1. A plan is made once for each definition of a tool and address, and outlives a change of the other addresses.
 * 2. What is held is of the tools that were called, in the form in which they were called last, and is given up with them.
 */
import { isDeepStrictEqual } from "node:util";
import { toOnexError, type OnexError } from "../core/errors.ts";
import type { Snapshot } from "../tools/snapshot.ts";
import type { Tool } from "../tools/tool.ts";
import { Picker } from "./picker.ts";
import { planOf, type Plan } from "./request.ts";
import { originOf } from "./template.ts";

export interface Target {
  /** The origin, by which its breaker and its pool are named; the address as it is where that is not one. */
  readonly key: string;
  readonly weight: number;
  /** Why it cannot be called, where it cannot. */
  readonly plan: Plan | OnexError;
}

interface Route {
  readonly tool: Tool;
  /** By address. */
  readonly plans: ReadonlyMap<string, Plan | OnexError>;
  readonly picker: Picker<Target>;
}

interface Address {
  readonly url: string;
  readonly weight: number;
}

export class Routes {
  /** By the tool's name. (2) */
  readonly #routes = new Map<string, Route>();
  readonly #origins = new WeakMap<Tool, readonly string[]>();

  /** Tools that plans are held for. */
  get size(): number {
    return this.#routes.size;
  }

  /** The picker over the tool's targets. */
  of(tool: Tool): Picker<Target> {
    const known = this.#routes.get(tool.name);
    if (known?.tool === tool) return known.picker;
    const route = routeOf(tool, known !== undefined && sameDefinition(known.tool, tool) ? known.plans : none);
    this.#routes.set(tool.name, route);
    return route.picker;
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

  /** Gives up what is held for tools that are not in the snapshot. */
  retain({ byName }: Snapshot): void {
    for (const name of this.#routes.keys()) if (!byName.has(name)) this.#routes.delete(name);
  }
}

const none: ReadonlyMap<string, Plan | OnexError> = new Map();

/** (1) */
function routeOf(tool: Tool, known: ReadonlyMap<string, Plan | OnexError>): Route {
  const plans = new Map<string, Plan | OnexError>();
  const targets = addressesOf(tool).map(({ url, weight }): Target => {
    const plan = plans.get(url) ?? known.get(url) ?? tryPlan(tool, url);
    plans.set(url, plan);
    return { key: originIn(url) ?? url, weight, plan };
  });
  return { tool, plans, picker: new Picker(targets) };
}

function tryPlan(tool: Tool, url: string): Plan | OnexError {
  try {
    return planOf(tool, isWhole(tool) ? undefined : url);
  } catch (error) {
    return toOnexError(error);
  }
}

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
export const isStandIn = (a: Tool, b: Tool): boolean =>
  a === b || (a.owner === b.owner && (sameDefinition(a, b) || isDeepStrictEqual(meaningOf(a), meaningOf(b))));

const meaningOf = ({ execution, inputSchema, outputSchema }: Tool): readonly unknown[] => [
  execution,
  inputSchema,
  outputSchema,
];
