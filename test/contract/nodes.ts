/** Node contracts for tests, as YAML text. JSON is YAML, which spares an indentation. */
export interface NodeWish {
  readonly [key: string]: unknown;
  readonly mcp?: Readonly<Record<string, unknown>>;
}

export const restExecution = { kind: "rest", url: "http://127.0.0.1:1/{city}" };

/** A contract that is exposed and right, but for what is wished otherwise; a wish of undefined removes the key. */
export function nodeContract(wish: NodeWish = {}): string {
  return JSON.stringify({
    name: "weather",
    node_type: "ORCHESTRATOR_GENERIC",
    description: "Says how the weather is.",
    ...wish,
    mcp: {
      expose: true,
      input_schema: { type: "object", properties: { city: { type: "string" } } },
      execution: restExecution,
      ...wish.mcp,
    },
  });
}
