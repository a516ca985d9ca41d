/** Which keys hold secrets, and values without them. Pure; every output that shows configuration goes through here. */

export const redacted = "[redacted]";

/** The end of a key in snake case; `apikey` written as one word counts too, and so, harmlessly, does `monkey`. */
const secretKey = /(token|password|passwd|passphrase|secret|key|sha256|authorization|credential|cookie)s?$/;
const urlCredentials = /(\/\/)[^/\s@]+@/g;

const snake = (key: string): string =>
  key
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replaceAll("-", "_")
    .toLowerCase();

/** True where a value under this path must not be shown: a secret key, a header, an item of a list of secrets. */
export function isSecretPath(path: readonly PropertyKey[]): boolean {
  const keys = path.filter((part) => typeof part !== "number").map((key) => snake(String(key)));
  return keys.includes("headers") || secretKey.test(keys.at(-1) ?? "");
}

/**
 * A copy in which the values of secret keys, credentials in URLs and the given secret values are `[redacted]`.
 *
 * @param secrets values to hide wherever they occur, whatever their key
 * @param path where `value` stands, when it is a part of something larger
 */
export function redact(
  value: unknown,
  secrets: Iterable<string> = [],
  path: readonly PropertyKey[] = [],
): unknown {
  const hidden = [...secrets].filter((secret) => secret !== "");
  return redactAt(value, hidden, path);
}

function redactAt(value: unknown, secrets: readonly string[], path: readonly PropertyKey[]): unknown {
  if (value === null || value === undefined) return value;
  if (Array.isArray(value)) return value.map((item, index) => redactAt(item, secrets, [...path, index]));
  if (typeof value === "object") {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, redactAt(item, secrets, [...path, key])]),
    );
  }
  if (isSecretPath(path)) return redacted;
  return typeof value === "string" ? redactText(value, secrets) : value;
}

/** Free text without the given secret values and without credentials in URLs. */
export function redactText(text: string, secrets: Iterable<string> = []): string {
  let result = text.replaceAll(urlCredentials, `$1${redacted}@`);
  for (const secret of secrets) if (secret !== "") result = result.replaceAll(secret, redacted);
  return result;
}
