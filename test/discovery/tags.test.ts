import { describe, expect, it } from "vitest";
import { claimOf } from "../../src/discovery/tags.ts";

const enabled = "mcp-enabled";
const orchestrator = "node-type:orchestrator";

describe("the tags of an instance", () => {
  it("name its tool when all three are there, in any order and among others", () => {
    expect(claimOf(["v2", "mcp-tool:orders", orchestrator, enabled])).toEqual({ toolName: "orders" });
  });

  it.each([
    { tags: [orchestrator, "mcp-tool:orders"], missing: "mcp-enabled" },
    { tags: [enabled, "mcp-tool:orders"], missing: "node-type:orchestrator" },
    { tags: [enabled, orchestrator], missing: "mcp-tool:<name>" },
    { tags: [enabled, orchestrator, "mcp-tool:"], missing: "names no tool" },
    { tags: [], missing: "mcp-enabled" },
  ])("without $missing there is no tool, and that is said", ({ tags, missing }) => {
    expect(claimOf(tags)).toEqual({ refused: expect.stringContaining(missing) as string });
  });

  it("are not read by halves: a tag in other letters is another tag", () => {
    expect(claimOf(["MCP-Enabled", orchestrator, "mcp-tool:orders"])).toHaveProperty("refused");
    expect(claimOf([enabled, "node-type:compute", "mcp-tool:orders"])).toHaveProperty("refused");
  });

  it("give one instance one tool: two names are refused with both, the same name twice is one", () => {
    expect(claimOf([enabled, orchestrator, "mcp-tool:a", "mcp-tool:b"])).toEqual({
      refused: expect.stringMatching(/"a", "b".*instance/) as string,
    });
    expect(claimOf([enabled, orchestrator, "mcp-tool:a", "mcp-tool:a"])).toEqual({ toolName: "a" });
  });

  it("may hold a name that clients would not take: it is cleaned", () => {
    expect(claimOf([enabled, orchestrator, "mcp-tool:get order!"])).toEqual({ toolName: "get_order_" });
    const long = claimOf([enabled, orchestrator, `mcp-tool:${"x".repeat(100)}`]);
    expect(long).toEqual({ toolName: expect.stringMatching(/^x{55}_[0-9a-f]{8}$/) as string });
  });

  it("may leave the node's type to the event that carries them, in any case", () => {
    expect(claimOf([enabled, "mcp-tool:orders"], "orchestrator_generic")).toEqual({ toolName: "orders" });
    expect(claimOf([enabled, "mcp-tool:orders"], "COMPUTE_GENERIC")).toHaveProperty("refused");
    expect(claimOf([enabled, orchestrator, "mcp-tool:orders"], "EFFECT")).toEqual({ toolName: "orders" });
  });
});
