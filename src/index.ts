/** Public API of the package. */
export {
  defineHandler,
  type HandlerContext,
  type HandlerDefinition,
  type Operation,
} from "./runtime/define.ts";
export type {
  Container,
  Envelope,
  Handler,
  HandlerClass,
  HandlerConfig,
  HandlerDescription,
  HandlerHealth,
} from "./runtime/handler.ts";
export type {
  BusHealth,
  BusMessage,
  DeadLetterCategory,
  DeliveredMessage,
  EventBus,
  MessageHandler,
  SubscribeOptions,
  Unsubscribe,
} from "./bus/bus.ts";
export { KafkaBus, type KafkaBusOptions, type KafkaSasl, type KafkaTls } from "./bus/kafka.ts";
export { HandlerHttp } from "./handlers/http.ts";
export { HandlerMCP, type McpContainer } from "./handlers/mcp.ts";
export {
  content,
  type ContentBlock,
  type ToolCall,
  type ToolContent,
  type ToolResult,
} from "./tools/call.ts";
export { Catalog, type CatalogOptions } from "./tools/catalog.ts";
export type { Snapshot } from "./tools/snapshot.ts";
export { defineTool, type DefinedTool } from "./tools/define.ts";
export type {
  JsonSchema,
  Tool,
  ToolAnnotations,
  ToolContext,
  ToolDefinition,
  ToolFunction,
} from "./tools/tool.ts";
export {
  CircuitBreaker,
  withCircuitBreaker,
  type BreakerOptions,
  type BreakerState,
  type CircuitBreaking,
} from "./resilience/circuit-breaker.ts";
export {
  AuthorizationError,
  CancelledError,
  EnvelopeValidationError,
  HandlerLoadError,
  InfraAuthenticationError,
  InfraConnectionError,
  InfraTimeoutError,
  InfraUnavailableError,
  OnexError,
  ProtocolConfigurationError,
  RuntimeHostError,
  SecretResolutionError,
  ToolNotFoundError,
  UnknownHandlerTypeError,
} from "./core/errors.ts";
export { version } from "./core/version.ts";
