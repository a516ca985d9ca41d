/**
 * Text of an error that somebody else made, fit to be shown to a client: the sentence stays; the stack, absolute paths
 * and addresses that Node puts into it go.
 */
import { basename } from "node:path";
import { messageOf } from "./errors.ts";

const maxLength = 2000;

/** Directories at the root of a usual file system: what tells `/home/me/x` from the `/users/7` of a web API. */
const rootDirectories =
  "app|bin|builds|data|dev|etc|home|lib|media|mnt|opt|private|proc|root|run|sbin|srv|sys|tmp|usr|var|work|workspace|Users|Volumes";

const absolutePath = new RegExp(
  `(?:file://)?(?<![\\w.:/-])/(?:${rootDirectories})(?:/[^\\s/'"\`:()?]+)+|file://[^\\s'"\`()?]+|\\b[A-Za-z]:\\\\[^\\s'"\`:?]+`,
  "g",
);

/** `text` on its own: up to its stack, with file names in place of absolute paths, at most 2,000 characters. */
export function withoutInternals(text: string): string {
  const stack = text.search(/\n[ \t]+at /);
  const message = stack === -1 ? text : text.slice(0, stack);
  const shown = message
    .slice(0, maxLength)
    .replaceAll(absolutePath, (path) => basename(path.replaceAll("\\", "/")))
    .replaceAll(/(\.[mc]?[jt]sx?)\?v=[0-9a-f]+/g, "$1");
  return message.length > maxLength ? `${shown}…` : shown;
}

/** The message of anything thrown. Never throws. */
export function publicMessage(thrown: unknown): string {
  const text = messageOf(thrown);
  try {
    return withoutInternals(withoutPlaces(text, thrown));
  } catch {
    // A getter on the thrown value failed.
    return withoutInternals(text);
  }
}

type Places = Partial<Record<"path" | "dest" | "address" | "port" | "hostname", unknown>>;

/** Without the file and the address that Node names in a failed system call, also in each of several. */
function withoutPlaces(message: string, thrown: unknown): string {
  if (!(thrown instanceof Error)) return message;
  const { path, dest, address, port, hostname } = thrown as Error & Places;
  let text = message;
  for (const file of [path, dest]) {
    if (typeof file === "string" && file !== "") text = text.replaceAll(file, basename(file));
  }
  for (const host of [address, hostname]) {
    if (typeof host !== "string" || host === "") continue;
    text = text.replaceAll(`${host}:${String(port)}`, "the server").replaceAll(host, "the server");
  }
  const several: readonly unknown[] = thrown instanceof AggregateError ? thrown.errors : [];
  return several.reduce<string>(withoutPlaces, text);
}
