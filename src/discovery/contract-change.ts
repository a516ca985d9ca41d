/** What a scan of contracts means for the tools that were served before it. Pure. */
import type { LoadEntry } from "../contract/load.ts";
import type { NodeScan } from "../contract/node-scan.ts";
import type { SourceChange, ToolRecord } from "../tools/source.ts";
import type { Tool } from "../tools/tool.ts";
import { toTool } from "./node-tool.ts";

export interface FoldedScan {
  /** What is served now, by path. */
  readonly tools: ReadonlyMap<string, Tool>;
  readonly change: SourceChange;
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
    const kept = [...served].filter(([path]) => path === entry.path || path.startsWith(`${entry.path}/`));
    for (const [path, tool] of kept) tools.set(path, tool);
    const own = kept.some(([path]) => path === entry.path)
      ? { ...entry, reason: `${entry.reason ?? "it failed"}; ${stays}` }
      : entry;
    const inside = kept
      .filter(([path]) => path !== entry.path)
      .map(([path, tool]): LoadEntry => {
        const reason = `its folder ${entry.path} cannot be read; ${stays}`;
        return { path, kind: "node", outcome: "failed", name: tool.name, reason };
      });
    return [own, ...inside];
  });
  const remove = [...served.keys()].filter((path) => !tools.has(path));
  return { tools, change: { put, remove }, entries };
}
