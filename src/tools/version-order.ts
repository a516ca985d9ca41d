/** The order of versions. Pure. */
import { coerce, compare, parse, type SemVer } from "semver";

/**
 * By semantic versioning (semver.org, section 11); build metadata does not count. `2` and `2.1` are versions too. What is
 * none is below all that are, and two such compare as text.
 */
export function compareVersions(a: string, b: string): number {
  const left = versionOf(a);
  const right = versionOf(b);
  if (left !== null && right !== null) return compare(left, right);
  if (left !== null) return 1;
  if (right !== null) return -1;
  return a < b ? -1 : a > b ? 1 : 0;
}

const versionOf = (text: string): SemVer | null =>
  parse(text) ?? (/^v?\d+(\.\d+)?$/.test(text) ? coerce(text) : null);
