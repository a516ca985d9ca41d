/** How the reasons for a name being served, or not, are shown to operators. Pure. */
import type { Explanation, RecordExplanation } from "../tools/explain.ts";
import { endpointUrls, withoutSecrets } from "./endpoints.ts";

/** The body of `GET /mcp/tools/{name}/explain`. */
export function explanationOnWire(explanation: Explanation): object {
  const { name, served, reason, tool, records, withheld, problems } = explanation;
  return {
    name,
    served,
    reason,
    ...(tool !== undefined && {
      source: tool.source,
      owner: tool.owner,
      version: tool.version,
      revision: tool.revision,
      endpoints: endpointUrls(tool),
    }),
    records: records.map(recordOnWire),
    withheld,
    problems: problems.map(({ source, about, reason: why }) => ({ source, about, reason: why })),
  };
}

const recordOnWire = (record: RecordExplanation): object => ({
  source: record.source,
  kind: record.kind,
  key: record.key,
  owner: record.owner,
  service_id: record.serviceId ?? null,
  tool_name: record.toolName ?? null,
  version: record.version ?? null,
  revision: record.revision ?? null,
  age_seconds: record.ageSeconds,
  restored_from: record.restoredFrom ?? null,
  url: record.url === undefined ? null : withoutSecrets(record.url),
  live: record.live ?? null,
  used: record.used,
  reason: record.reason,
});
