/** What clients accept of a tool besides its schemas: name, description, icons; and how other text becomes that. */
import { createHash } from "node:crypto";

/** Characters a name may have, the least that every known client accepts. */
const maxNameLength = 64;

const allowed = /^[A-Za-z0-9_.-]+$/;
const hashLength = 8;

/** Why `name` cannot be served as it is, or undefined where it can. */
export function nameProblem(name: string): string | undefined {
  if (name === "") return "a tool's name is empty";
  if (!allowed.test(name))
    return `the name ${JSON.stringify(name)} has other characters than A-Z a-z 0-9 _ . -`;
  if (name.length > maxNameLength)
    return `the name ${JSON.stringify(name)} has ${name.length} characters, ${maxNameLength} is the most`;
  return undefined;
}

/**
 * A name that every client accepts. A good name stays as it is; other characters become `_`; what is too long is cut
 * and ends in a hash of the whole, so that the same text always gives the same name and two long ones stay two.
 */
export function cleanName(name: string): string {
  if (nameProblem(name) === undefined) return name;
  const clean = name.trim().replaceAll(/[^A-Za-z0-9_.-]+/g, "_");
  // Of a name in another script nothing but "_" is left: the hash keeps two such names apart.
  if (!/[A-Za-z0-9]/.test(clean)) return `tool_${shortHash(name)}`;
  if (clean.length <= maxNameLength) return clean;
  return `${clean.slice(0, maxNameLength - hashLength - 1)}_${shortHash(name)}`;
}

const shortHash = (text: string): string =>
  createHash("sha256").update(text).digest("hex").slice(0, hashLength);

/** A description for the model; never empty. */
export function describeTool(name: string, ...descriptions: readonly (string | undefined)[]): string {
  return descriptions.find((text) => text !== undefined && text.trim() !== "") ?? `The tool ${name}.`;
}

/** Icons that a client may load: nothing that runs code or reads its files. */
export const allowedIcon = (src: string): boolean => /^(https:\/\/|data:image\/)/i.test(src);
