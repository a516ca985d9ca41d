/** The host's operator port: liveness, readiness and envelopes over HTTP. */
import { hostRoutes } from "../admin/routes.ts";
import type { LoadedConfig } from "../config/load.ts";
import type { Logger } from "../core/log.ts";
import { isLoopback } from "../http/address.ts";
import { assertSafeBinding, createAuthenticator } from "../http/auth.ts";
import { createGuard } from "../http/guard.ts";
import { httpParts } from "../http/parts.ts";
import { listen, type HttpServer } from "../http/server.ts";
import type { RuntimeHost } from "../runtime/host.ts";

/**
 * Listens for operators; undefined where the configuration says `health.port: false`.
 *
 * @throws ProtocolConfigurationError where the address cannot be bound, or others could call without a key
 */
export async function listenForOperators(
  { host: address, port, apiKeys }: LoadedConfig["runtime"]["health"],
  host: RuntimeHost,
  log: Logger,
): Promise<HttpServer | undefined> {
  if (port === false) return undefined;
  assertSafeBinding({ host: address, hasAuthentication: apiKeys.length > 0 });
  const reads = {
    health: () => host.health(),
    readiness: () => host.ready(),
    handle: (bytes: Uint8Array, signal: AbortSignal) => host.handle(bytes, { signal }),
  };
  const authenticator = createAuthenticator({ apiKeys, loopbackIsAdmin: isLoopback(address), log });
  const app = hostRoutes(reads, httpParts(createGuard({ host: address }), authenticator));
  return listen({
    host: address,
    port,
    fetch: (request) => app.fetch(request),
    onError: (error) => log.error({ err: error.message }, "operator port error"),
  });
}
