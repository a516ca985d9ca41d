/** What the sources were told and cannot use, said alike for all: who misses a tool looks here. Pure. */
import { basename, dirname } from "node:path/posix";
import type { LoadEntry } from "../contract/load.ts";
import type { SourceProblem } from "../tools/source.ts";
import { nodeContractPrefix } from "./consul-instance.ts";
import type { Sources } from "./sources.ts";

export const problemsOf = ({ contracts, consul, events }: Sources): readonly SourceProblem[] => [
  ...(contracts?.report().entries ?? []).filter(({ outcome }) => outcome !== "loaded").map(ofContract),
  ...(consul?.report() ?? []).map(({ key, reason, names = [] }) => ({
    source: "consul",
    about: key,
    names: key.startsWith(nodeContractPrefix) ? [key.slice(nodeContractPrefix.length)] : names,
    reason,
  })),
  ...(events?.report() ?? []).map(({ serviceId, names, reason }) => ({
    source: "events",
    about: serviceId,
    names,
    reason: `a registration event is rejected: ${reason}`,
  })),
];

function ofContract({ path, outcome, name, tool, reason = "nothing is known" }: LoadEntry): SourceProblem {
  const names = [name, tool].filter((each) => each !== undefined);
  return {
    source: "contracts",
    about: path,
    // What cannot be read has no name but its folder's.
    names: names.length > 0 ? names : [basename(dirname(path))],
    reason: `${path} is ${outcome}: ${reason}`,
  };
}
