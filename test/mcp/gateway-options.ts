/** Of a gateway whose tools the test puts into its catalog: no source, no keys. */
import type { GatewayOptions } from "../../src/gateway.ts";

export const gatewayOptions = {
  host: "127.0.0.1",
  path: "/mcp",
  stateless: false,
  jsonResponse: true,
  sessionTtlSeconds: 3600,
  maxSessions: 100_000,
  pageSize: 100,
  timeoutSeconds: 30,
  maxTools: 100,
  requiredTags: [],
  excludedTags: [],
  allowedNetworks: [],
  allowedHosts: [],
  allowedOrigins: [],
  apiKeys: [],
} as unknown as GatewayOptions;
