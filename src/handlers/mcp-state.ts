/** The states of HandlerMCP, as one tagged union: what a state needs lies on it. Data only; `mcp.ts` makes the transitions. */
import type { Gateway } from "../gateway.ts";
import type { HttpServer } from "../http/server.ts";
import type { McpConfig } from "./mcp-config.ts";

/** What one start has made. */
export interface Parts {
  readonly config: McpConfig;
  readonly gateway: Gateway;
  /** Absent with skip_server, and until the start has bound. */
  server?: HttpServer;
  /** Absent where none is configured. */
  registration?: ReturnType<Gateway["registration"]>;
}

export interface Starting {
  readonly kind: "starting";
  /** Ends the start. */
  readonly abort: AbortController;
  /** Resolves when the start has succeeded or is undone. */
  readonly done: Promise<undefined>;
  /** Set as soon as there is something to undo. */
  parts?: Parts;
}

export type State =
  /** `forced`: the last stop had to abort calls. */
  | { readonly kind: "idle"; readonly forced: boolean }
  | Starting
  /** `since`: monotonic ms. */
  | { readonly kind: "running"; readonly parts: Parts; readonly since: number }
  | {
      readonly kind: "draining";
      readonly parts: Parts;
      readonly since: number;
      readonly done: Promise<undefined>;
    };

export const partsOf = (state: State): Parts | undefined => (state.kind === "idle" ? undefined : state.parts);

/** Whether `initialize` has succeeded and `shutdown` has not. */
export const isInitialized = (state: State): boolean => state.kind === "running" || state.kind === "draining";
