/** Handler contracts of Consul's key-value store. Owns where they lie and how long reading them may take. */
import { deadline } from "../core/abort.ts";
import { openConsul, type ConsulOptions } from "../discovery/consul-client.ts";
import type { RemoteContracts } from "../runtime/contracts.ts";

const prefix = "onex/contracts/handlers/";
/** A start waits for them. */
const readSeconds = 5;

/** Opens nothing before they are read, and keeps nothing open afterwards. */
export const consulContracts = (options: ConsulOptions): RemoteContracts => ({
  name: "consul",
  async read() {
    using limit = deadline(readSeconds, `reading ${prefix} from Consul`);
    const consul = await openConsul(options);
    try {
      const keys = await consul.readKeys(prefix, limit.signal);
      // A key that ends with a slash is a folder, as Consul's own page makes them.
      return keys
        .filter(({ key }) => !key.endsWith("/"))
        .map(({ key, value }) => ({ path: key, text: value }));
    } finally {
      consul.close();
    }
  },
});
