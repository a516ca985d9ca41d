/**
 * Rows with one of these ids, in Consul's filter language. Pure. It has two kinds of quotation marks and no escapes:
 * undefined where an id cannot be quoted, and all rows have to be looked through.
 */
export function idFilter(ids: readonly string[]): string | undefined {
  const terms = ids.map(quoted);
  return terms.includes(undefined) ? undefined : terms.map((term) => `ID == ${term}`).join(" or ");
}

function quoted(id: string): string | undefined {
  if (!id.includes("`")) return `\`${id}\``;
  return /["\\]/.test(id) ? undefined : `"${id}"`;
}
