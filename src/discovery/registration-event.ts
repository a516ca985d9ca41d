/**
 * From a message on a registration topic to what it says. Pure. Owns: reading the bytes, defaults that the message gives,
 * and the statement about the instance. Does not own: the order of events (`registration-log.ts`).
 *
 * 1. Whatever the message holds, reading it never throws; what is wrong is named with the field, what was expected and the value.
 * 2. Text stays as it is: nothing in an event is expanded.
 * 3. An event that says a service is gone is read by its service id alone: nothing else in it can keep it from being heard.
 * 4. An event is the whole of what it states: a field that it lacks is not taken from an earlier one.
 */
import type { DeliveredMessage } from "../bus/bus.ts";
import {
  normaliseInputSchema,
  normaliseOutputSchema,
  type NormalisedSchema,
  type SchemaRole,
} from "../contract/input-schema.ts";
import { noPort, onexExecution, restExecution } from "../contract/node-execution.ts";
import { type Problem, problemsOf, problemText, valueText } from "../contract/problems.ts";
import { isObject } from "../core/json.ts";
import type { Instance, InstanceDefinition, ServiceExecution } from "../tools/instance.ts";
import {
  eventHeadSchema,
  type EventType,
  knownEventKeys,
  type RegistrationDocument,
  registrationEventSchema,
} from "./registration-schema.ts";
import { claimOf } from "./tags.ts";

export interface RegistrationEvent {
  readonly eventId: string;
  /** `null`: a null value under the service's key, as a compacted topic has it. */
  readonly type: EventType | null;
  readonly serviceId: string;
  /** Milliseconds since the epoch. */
  readonly emittedAt: number;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** Absent: the instance is gone. */
  readonly instance?: Instance;
  /** Keys without effect. */
  readonly ignored: readonly string[];
}

export type ReadRegistration =
  | { readonly ok: true; readonly event: RegistrationEvent }
  | {
      readonly ok: false;
      readonly kind: "InvalidJsonError" | "InvalidEventError";
      readonly reason: string;
      readonly subject: EventSubject;
    };

/** What an event is about, as far as it can be told. */
export interface EventSubject {
  readonly serviceId: string | null;
  /** Of the service, of the tool. */
  readonly names: readonly string[];
}

export type RegistrationReader = (message: DeliveredMessage) => ReadRegistration;

/** Schemas whose normal form is remembered: instances of a service, and its later events, repeat them. */
const rememberedSchemas = 10_000;
/** Characters of a schema that is remembered. */
const rememberedLength = 4 * 1024;

/** A reader of registration events. Holds nothing but the normal form of schemas that it has seen. */
export function registrationReader(): RegistrationReader {
  const normalise = rememberSchemas();
  return (message) => read(message, normalise);
}

type Normalise = (schema: unknown, role: SchemaRole) => NormalisedSchema;

function rememberSchemas(): Normalise {
  const known = new Map<string, NormalisedSchema>();
  return (schema, role) => {
    const key = `${role} ${JSON.stringify(schema)}`;
    const before = known.get(key);
    if (before !== undefined) return before;
    const result = role === "input" ? normaliseInputSchema(schema) : normaliseOutputSchema(schema);
    if (key.length > rememberedLength) return result;
    if (known.size >= rememberedSchemas) known.clear();
    known.set(key, result);
    return result;
  };
}

/** Containers within each other in the templates of an execution: whoever walks them does so by recursion. */
const maxDepth = 64;
const tooDeep = "it is nested too deeply";

const decoder = new TextDecoder("utf-8", { fatal: true });

function read(message: DeliveredMessage, normalise: Normalise): ReadRegistration {
  const { key, value } = message;
  const subject = { serviceId: key, names: [] };
  if (value === null) {
    if (key === null || key === "")
      return invalid("a message without a value needs a service_id as its key, got none", subject);
    return { ok: true, event: { ...placeOf(message), type: null, serviceId: key, ignored: [] } };
  }
  let data: unknown;
  try {
    data = JSON.parse(decoder.decode(value));
  } catch (thrown) {
    const why = thrown instanceof SyntaxError ? `not JSON: ${thrown.message}` : "not valid UTF-8";
    return { ok: false, kind: "InvalidJsonError", reason: `the value is ${why}`, subject };
  }
  if (!isObject(data)) return invalid(`expected a JSON object, got ${valueText(data)}`, subject);
  try {
    return readDocument(withoutNulls(data), message, normalise);
  } catch (thrown) {
    if (thrown instanceof RangeError) return invalid(tooDeep, subjectOf(data, key)); // (1)
    throw thrown;
  }
}

function readDocument(
  document: Record<string, unknown>,
  message: DeliveredMessage,
  normalise: Normalise,
): ReadRegistration {
  const serviceId = document.service_id ?? message.key;
  const whole = serviceId === null || serviceId === "" ? document : { ...document, service_id: serviceId };
  const isGone = document.event_type === "deregistered" || document.event_type === "expired";
  const parsed = (isGone ? eventHeadSchema : registrationEventSchema).safeParse(whole); // (3)
  const problems = parsed.success ? [] : problemsOf(parsed.error, whole);
  if (!("service_id" in whole))
    problems.push({ path: ["service_id"], message: "is missing, and the message has no key" });
  if (!parsed.success || problems.length > 0)
    return invalid(problemText(problems), subjectOf(document, message.key));
  const fields = parsed.data as RegistrationDocument;
  const head = headOf(fields, message);
  if (isGone) return { ok: true, event: head };
  const instance = instanceOf(fields, head.serviceId, normalise, problems);
  if (problems.length > 0) return invalid(problemText(problems), subjectOf(document, message.key));
  return { ok: true, event: { ...head, instance } };
}

const invalid = (reason: string, subject: EventSubject): ReadRegistration => ({
  ok: false,
  kind: "InvalidEventError",
  reason,
  subject,
});

function subjectOf(document: Record<string, unknown>, key: string | null): EventSubject {
  const { service_id: id, service_name: name, tags } = document;
  const claimed = Array.isArray(tags)
    ? claimOf(
        tags.filter((tag) => typeof tag === "string"),
        "ORCHESTRATOR",
      )
    : undefined;
  return {
    serviceId: typeof id === "string" && id !== "" ? id : key,
    names: [
      ...(typeof name === "string" ? [name] : []),
      ...(claimed !== undefined && "toolName" in claimed ? [claimed.toolName] : []),
    ],
  };
}

function placeOf(
  message: DeliveredMessage,
): Pick<RegistrationEvent, "eventId" | "emittedAt" | "topic" | "partition" | "offset"> {
  const { topic, partition, offset, timestamp } = message;
  return {
    eventId: `${topic}/${partition}/${offset}`,
    emittedAt: timestamp,
    topic,
    partition,
    offset: Number(offset),
  };
}

function headOf(
  fields: RegistrationDocument,
  message: DeliveredMessage,
): Omit<RegistrationEvent, "instance"> {
  const { event_id: eventId, emitted_at: emittedAt, event_type: type, service_id: serviceId = "" } = fields;
  return {
    ...placeOf(message),
    ...(eventId !== undefined && { eventId }),
    ...(emittedAt !== undefined && { emittedAt: timeOf(emittedAt) }),
    type,
    serviceId,
    ignored: Object.keys(fields).filter((key) => !knownEventKeys.has(key)),
  };
}

/** A date and time without a zone would be local time to `Date`. */
const timeOf = (text: string): number => Date.parse(/(?:Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : `${text}Z`);

/** A key without a value is an absent key. Schemas and templates stay as they are. */
function withoutNulls(data: Record<string, unknown>): Record<string, unknown> {
  const clean = (value: Record<string, unknown>): Record<string, unknown> =>
    Object.values(value).includes(null)
      ? Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null))
      : value;
  const document = { ...clean(data) };
  for (const key of ["annotations", "execution"]) {
    const value = document[key];
    if (isObject(value)) document[key] = clean(value);
  }
  return document;
}

/** (4) */
function instanceOf(
  fields: RegistrationDocument,
  serviceId: string,
  normalise: Normalise,
  problems: Problem[],
): Instance {
  const { service_name: serviceName, tags, node_type: nodeType, endpoint } = fields;
  const url = endpoint === undefined ? undefined : baseUrl(endpoint, problems);
  return {
    source: "event",
    serviceId,
    ...(serviceName !== undefined && { serviceName }),
    ...(tags !== undefined && { claim: claimOf(tags, nodeType) }),
    definition: definitionOf(fields, normalise, problems),
    ...(url !== undefined && { url }),
    live: true,
  };
}

function definitionOf(
  fields: RegistrationDocument,
  normalise: Normalise,
  problems: Problem[],
): InstanceDefinition {
  const { title, description, tags, timeout_seconds: timeoutSeconds, execution } = fields;
  const version = versionText(fields.node_version);
  const annotations = annotationsOf(fields.annotations);
  const schemaOf = (role: SchemaRole): { inputSchema?: Schema; outputSchema?: Schema } => {
    const name = `${role}_schema` as const;
    const schema = fields[name];
    if (schema === undefined) return {};
    const result = normalise(schema, role);
    if (result.ok) return { [`${role}Schema`]: result.schema };
    problems.push({ path: [name], message: result.problem });
    return {};
  };
  const carriedOut = execution === undefined ? undefined : executionOf(execution, problems);
  return {
    ...(title !== undefined && { title }),
    ...(description !== undefined && description.trim() !== "" && { description }),
    ...(version !== undefined && { version }),
    ...schemaOf("input"),
    ...schemaOf("output"),
    ...(annotations !== undefined && { annotations }),
    ...(tags !== undefined && { tags }),
    ...(timeoutSeconds !== undefined && { timeoutSeconds }),
    ...(carriedOut !== undefined && { execution: carriedOut }),
  };
}

type Schema = NonNullable<InstanceDefinition["inputSchema"]>;

function versionText(version: RegistrationDocument["node_version"]): string | undefined {
  if (version === undefined || typeof version === "string") return version;
  return `${version.major}.${version.minor}.${version.patch}`;
}

function annotationsOf(annotations: RegistrationDocument["annotations"]): InstanceDefinition["annotations"] {
  if (annotations === undefined) return undefined;
  const { read_only, destructive, idempotent, open_world } = annotations;
  return {
    ...(read_only !== undefined && { readOnly: read_only }),
    ...(destructive !== undefined && { destructive }),
    ...(idempotent !== undefined && { idempotent }),
    ...(open_world !== undefined && { openWorld: open_world }),
  };
}

/** Stands for the endpoint while the rest of a URL is checked as a contract's is. */
const anyEndpoint = "http://endpoint";

function executionOf(
  execution: NonNullable<RegistrationDocument["execution"]>,
  problems: Problem[],
): ServiceExecution | undefined {
  const found: Problem[] = [];
  if (!isWithin(execution, maxDepth)) throw new RangeError(tooDeep);
  const { kind } = execution;
  const checked =
    kind === "onex"
      ? onexExecution({ kind, endpoint: anyEndpoint, path: execution.path }, found)
      : restExecution({ ...execution, url: anyEndpoint + (execution.url ?? "") }, found);
  // A contract has it one level down.
  problems.push(...found.map(({ path, ...rest }) => ({ ...rest, path: path.slice(1) })));
  // "/" and silence are one path: instances that differ in nothing else stand in for one another.
  if (checked.kind === "onex") return { kind: "onex", path: checked.path === "/" ? "" : checked.path };
  return checked.kind === "rest" ? { ...checked, url: checked.url.slice(anyEndpoint.length) } : undefined;
}

const isWithin = (value: unknown, depth: number): boolean =>
  typeof value !== "object" ||
  value === null ||
  (depth > 0 && Object.values(value).every((item) => isWithin(item, depth - 1)));

/** The endpoint without a slash at its end. */
function baseUrl(endpoint: string, problems: Problem[]): string | undefined {
  const problem = urlProblem(endpoint);
  if (problem === undefined) return new URL(endpoint).href.replace(/\/+$/, "");
  problems.push({ path: ["endpoint"], message: problem });
  return undefined;
}

function urlProblem(endpoint: string): string | undefined {
  if (!/^https?:\/\/[^/?#\\]/i.test(endpoint) || !URL.canParse(endpoint))
    return `expected an absolute http or https URL, got ${valueText(endpoint)}`;
  const { username, password, port } = new URL(endpoint);
  // Not shown: it is a secret.
  if (username !== "" || password !== "") return "expected a URL without user and password";
  if (port === "0") return `${noPort}, got ${valueText(endpoint)}`;
  if (/[?#]/.test(endpoint)) return `expected a URL without query and fragment, got ${valueText(endpoint)}`;
  return undefined;
}
