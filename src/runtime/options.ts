/** What a runtime host is made of, and which of it contradicts itself. */
import type { EventBus } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { ProtocolConfigurationError } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import { isTopicName } from "../core/topic-name.ts";
import type { BootstrapHandler, HandlerSource, RemoteContracts } from "./contracts.ts";
import type { ImportModule } from "./loader.ts";
import type { Environment } from "./settings.ts";
import type { HandlerSection } from "./start.ts";

export interface HostOptions {
  readonly name: string;
  readonly version: string;
  readonly inputTopic: string;
  readonly outputTopic: string;
  readonly consumerGroup: string;
  /** Started and closed by the host. */
  readonly bus: EventBus;
  /** By type. */
  readonly handlers: Readonly<Record<string, HandlerSection>>;
  readonly contractsDir?: string;
  readonly handlerSource: HandlerSource;
  readonly bootstrap: readonly BootstrapHandler[];
  /** Handler contracts that are kept elsewhere. Default: there are none. */
  readonly remote?: RemoteContracts;
  readonly allowedNamespaces: readonly string[];
  readonly shutdown: {
    readonly drainTimeoutSeconds: number;
    readonly handlerTimeoutSeconds: number;
    readonly gracePeriodSeconds: number;
  };
  /** Calls of handlers at once. */
  readonly maxConcurrency: number;
  readonly healthCheckTimeoutSeconds: number;
  readonly env: Environment;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly importModule?: ImportModule;
}

/** @throws ProtocolConfigurationError naming the keys that contradict one another */
export function checkOptions(options: HostOptions): void {
  const { inputTopic, outputTopic, shutdown } = options;
  for (const [key, topic] of [
    ["input_topic", inputTopic],
    ["output_topic", outputTopic],
  ] as const) {
    if (!isTopicName(topic)) {
      throw new ProtocolConfigurationError(
        `${key}: expected 1 to 249 of a-z A-Z 0-9 . _ -, got ${JSON.stringify(topic)}`,
      );
    }
  }
  if (inputTopic === outputTopic) {
    throw new ProtocolConfigurationError(
      `input_topic and output_topic are both ${JSON.stringify(inputTopic)}: answers would come back as envelopes`,
    );
  }
  const least = shutdown.drainTimeoutSeconds + shutdown.handlerTimeoutSeconds;
  if (!(shutdown.gracePeriodSeconds > least)) {
    throw new ProtocolConfigurationError(
      `shutdown.grace_period_seconds must exceed drain_timeout_seconds plus the slowest group of handlers (${least}), got ${shutdown.gracePeriodSeconds}`,
    );
  }
}
