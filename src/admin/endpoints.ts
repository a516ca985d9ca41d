/** Where the calls of a tool go, as operators are shown it. Pure. */
import type { Tool } from "../tools/tool.ts";

/** Without what may be a secret: user, password, query. */
export function endpointUrls({ execution, endpoints }: Tool): readonly string[] {
  if (endpoints !== undefined) return endpoints.map(({ url }) => withoutSecrets(url));
  switch (execution.kind) {
    case "local":
    case "function":
    case "bus":
      return [];
    case "onex":
      return execution.endpoints.map(withoutSecrets);
    case "rest":
      return [withoutSecrets(execution.url)];
  }
}

export const withoutSecrets = (url: string): string =>
  url.replace(/[?#].*$/s, "").replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/]*@/i, "$1");
