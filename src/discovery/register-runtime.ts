/** The registration that a running server's configuration asks for. Owns: which parts it is given. */
import type { EventBus } from "../bus/bus.ts";
import type { Logger } from "../core/log.ts";
import type { Catalog } from "../tools/catalog.ts";
import type { ConsulOptions } from "./consul-client.ts";
import { type EventTarget, eventTarget } from "./register-publish.ts";
import { Registration } from "./register.ts";
import type { Bound, RegisterOptions } from "./register-service.ts";

export interface RegisterSettings extends RegisterOptions {
  readonly enabled: boolean;
  /** Whether the services of contracts' tools are registered too. */
  readonly tools: boolean;
  /** Absent: no events are sent. */
  readonly events?: Pick<EventTarget, "topic" | "partitions">;
}

export interface RegistrationWish {
  readonly register: RegisterSettings;
  /** Absent: Consul is not contacted. */
  readonly consul?: ConsulOptions;
  readonly contractsDir?: string;
}

export interface RegistrationParts {
  readonly catalog: Catalog;
  readonly bus?: EventBus;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
}

/**
 * Not started; undefined where none is wanted, or Consul is not contacted.
 *
 * @param isReady whether the server is well
 * @throws ProtocolConfigurationError where nothing says at which address others reach this runtime
 */
export function makeRegistration(
  { register, consul, contractsDir: directory }: RegistrationWish,
  { catalog, bus, env, log }: RegistrationParts,
  bound: Bound,
  isReady: () => boolean,
): Registration | undefined {
  if (!register.enabled || consul === undefined) return undefined;
  const events = register.events && eventTarget(bus, register.events);
  return new Registration({
    consul,
    register,
    bound,
    ...(register.tools && directory !== undefined && { contracts: { directory, env } }),
    tools: () => catalog.snapshot().tools,
    onChange: (listener) => catalog.onChange(listener),
    isReady,
    ...(events !== undefined && { events }),
    log,
  });
}
