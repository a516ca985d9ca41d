/** What a scan of contracts means for the tools that were served before it. Pure. */
import { basename } from "node:path/posix";
import type { LoadEntry } from "../contract/load.ts";
import { nodeContractFile, type NodeScan } from "../contract/node-scan.ts";
import type { SourceChange, ToolRecord } from "../tools/source.ts";
import type { Tool } from "../tools/tool.ts";
import { toTool } from "./node-tool.ts";

export interface FoldedScan {
  /** What is served now, by path. */
  readonly tools: ReadonlyMap<string, Tool>;
  readonly change: SourceChange<ToolRecord>;
  /** The scan's entries; those whose last good version stays say so. */
  readonly entries: readonly LoadEntry[];
}

const stays = "the last good version is still served";

/** Folds a scan into what was served: good contracts take effect, bad ones keep their last good version, others go. */
export function foldScan(served: ReadonlyMap<string, Tool>, scan: NodeScan): FoldedScan {
  const tools = new Map<string, Tool>();
  const put: ToolRecord[] = [];
  for (const [path, contract] of scan.contracts) {
    const before = served.get(path);
    const tool = toTool(contract);
    const isSame = before?.revision === tool.revision;
    tools.set(path, isSame ? before : tool);
    if (!isSame) put.push({ key: path, tool });
  }
  const entries = scan.entries.flatMap((entry) => {
    if (entry.outcome !== "failed") return [entry];
    const own = served.get(entry.path);
    if (own !== undefined) {
      tools.set(entry.path, own);
      return [{ ...entry, reason: `${entry.reason ?? "it failed"}; ${stays}` }];
    }
    // Of a file nothing was served; of a folder, all that is in it may have been.
    if (basename(entry.path) === nodeContractFile) return [entry];
    const inside = [...served].filter(([path]) => path.startsWith(`${entry.path}/`));
    const kept = inside.map(([path, tool]): LoadEntry => {
      tools.set(path, tool);
      const reason = `its folder ${entry.path} cannot be read; ${stays}`;
      return { path, kind: "node", outcome: "failed", name: tool.name, reason };
    });
    return [entry, ...kept];
  });
  const remove = [...served.keys()].filter((path) => !tools.has(path));
  return { tools, change: { put, remove }, entries };
}
