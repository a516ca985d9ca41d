/** From a node contract to the tool that it describes. */
import { createHash } from "node:crypto";
import type { NodeContract } from "../contract/node.ts";
import type { Tool } from "../tools/tool.ts";

/** The tool of a contract. Its revision is a hash of all it says, with the schema files it refers to. */
export function toTool(contract: NodeContract): Tool {
  const { path, toolName, icons, ...definition } = contract;
  const tool = {
    name: toolName,
    ...definition,
    ...(icons.length > 0 && { icons }),
    source: "contract" as const,
    owner: path,
  };
  const revision = createHash("sha256").update(JSON.stringify(tool)).digest("hex").slice(0, 16);
  return Object.freeze({ ...tool, revision });
}
