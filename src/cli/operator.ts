/** The host's operator port: liveness, readiness and envelopes over HTTP. */
import { hostRoutes } from "../admin/routes.ts";
import type { LoadedConfig } from "../config/load.ts";
import type { Logger } from "../core/log.ts";
import { createAuthenticator } from "../http/auth.ts";
import { createGuard, readBody } from "../http/guard.ts";
import { problem, problemResponse } from "../http/problem.ts";
import { listen, type HttpServer } from "../http/server.ts";
import type { RuntimeHost } from "../runtime/host.ts";

/** Listens for operators; undefined where the configuration says `health.port: false`. */
export async function listenForOperators(
  config: LoadedConfig["runtime"]["health"],
  host: RuntimeHost,
  log: Logger,
): Promise<HttpServer | undefined> {
  if (config.port === false) return undefined;
  const guard = createGuard(config);
  const app = hostRoutes(
    {
      health: () => host.health(),
      readiness: () => host.ready(),
      handle: (bytes, signal) => host.handle(bytes, { signal }),
    },
    {
      ...createAuthenticator({ apiKeys: config.apiKeys, loopbackIsAdmin: true, log }),
      guard: guard.middleware,
      problem,
      readBody: async (request) => {
        const read = await readBody(request, guard.maxBodyBytes);
        return read.ok ? read.bytes : problemResponse(read.problem);
      },
    },
  );
  return listen({
    host: config.host,
    port: config.port,
    fetch: (request) => app.fetch(request),
    onError: (error) => log.error({ err: error.message }, "operator port error"),
  });
}
