/** Changes the list of tools as a user does: by writing a contract into the folder. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

const folder = join(import.meta.dirname, "../test_changing_tool");

const contract = (description) => `name: test_changing_tool
node_type: ORCHESTRATOR
node_version: 1.0.0
description: ${description}
mcp:
  expose: true
  tool_name: test_changing_tool
  description: ${description}
  execution: { kind: local, module: ../content.mjs, export: simpleText }
`;

let changes = 0;

/** Never back to an earlier state: two calls in a row would undo each other before the runtime has looked. */
export async function changeTools() {
  changes += 1;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "contract.yaml"), contract(`Written ${changes} times.`));
  return `Wrote the contract of test_changing_tool (${changes}).`;
}
