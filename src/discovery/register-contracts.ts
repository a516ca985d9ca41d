/** The tools of contract files as services that others can be told of. Owns reading what each contract says of itself. */
import { readContractFile } from "../contract/load.ts";
import type { Env } from "../contract/node-execution.ts";
import { scanNodes } from "../contract/node-scan.ts";
import { messageOf } from "../core/errors.ts";
import { Catalog, type CatalogOptions } from "../tools/catalog.ts";
import type { Tool } from "../tools/tool.ts";
import { toTool } from "./node-tool.ts";
import { toolService, type ToolServiceReading } from "./register-tool.ts";

export interface ContractFiles {
  readonly directory: string;
  /** What variables in contracts are taken from. */
  readonly env: Env;
}

/**
 * The tools that these contract files come to, as a runtime with these filters serves them.
 *
 * @throws HandlerLoadError 020, 021, 022 for the directory itself
 */
export async function contractTools(
  files: ContractFiles & { readonly exposeNodeTypes: readonly string[] },
  filters: Pick<CatalogOptions, "maxTools" | "requiredTags" | "excludedTags">,
): Promise<readonly Tool[]> {
  const { contracts } = await scanNodes(files);
  const catalog = new Catalog(filters);
  const put = [...contracts].map(([key, contract]) => ({ key, tool: toTool(contract) }));
  catalog.apply("contracts", { put, remove: [] });
  return catalog.snapshot().tools;
}

/** What each of the tools that contracts serve is as a service, in their order; other tools are passed over. */
export async function contractServices(
  tools: readonly Tool[],
  { directory, env }: ContractFiles,
): Promise<readonly ToolServiceReading[]> {
  const readings: ToolServiceReading[] = [];
  for (const tool of tools) {
    if (tool.source !== "contract") continue;
    try {
      const { data } = await readContractFile(directory, tool.owner);
      readings.push(toolService(tool, data, env));
    } catch (error) {
      readings.push({ ok: false, tool: tool.name, reason: messageOf(error) });
    }
  }
  return readings;
}
