/**
 * The work of `onex register` and `onex deregister`: service by service, each with its outcome in the report. A failure
 * of one is no reason to leave the others.
 */
import { within } from "../core/abort.ts";
import { InfraTimeoutError, messageOf } from "../core/errors.ts";
import {
  announceGone,
  announceTool,
  ensureTopic,
  type EventTarget,
  type Publishing,
  type Registrant,
  registeredAt,
  registerTool,
  removeContracts,
  removeService,
} from "../discovery/register-publish.ts";
import { idFilter } from "../discovery/consul-filter.ts";
import type { RegistrationPlan } from "../discovery/register-service.ts";
import { claimOf } from "../discovery/tags.ts";
import { noEvent, type Report, rowOf } from "./register-report.ts";

/** Seconds in which Kafka must have taken an event, its topic made. */
const eventSeconds = 15;
const doneText = "registered";
const othersText = "somebody else's, left as it is";
const failedText = "failed";
const notSent = "not sent";

/** @throws OnexError where Consul cannot be asked what is there */
export async function registerAll(
  { self, tools }: RegistrationPlan,
  parts: Publishing,
  report: Report,
): Promise<void> {
  const all = [...(self === undefined ? [] : [self]), ...tools.map(({ registration }) => registration)];
  const present = await registeredAt(
    parts.consul,
    all.map(({ id }) => id),
  );
  const tell = (id: string, work: () => Promise<void>): Promise<string> =>
    present.get(id) === "other"
      ? Promise.resolve(othersText)
      : attempt(report, id, async () => {
          await work();
          return doneText;
        });
  if (self !== undefined) {
    const consul = await tell(self.id, () => parts.consul.registerService(self));
    report.services.push(rowOf(self, { consul, event: noEvent }));
  }
  const events = await openEvents(parts.events, tools.length, report);
  for (const entry of tools) {
    const { registration, toolName: tool, contract } = entry;
    const consul = await tell(registration.id, async () => {
      if (!(await registerTool(parts, entry)))
        report.notes.push(`${contract.key} was written by somebody else, and stays`);
    });
    const event =
      events === undefined || consul !== doneText
        ? notSent
        : await attempt(report, `the event of ${registration.id}`, async () => {
            await timely(announceTool(parts, entry));
            return doneText;
          });
    report.services.push(rowOf(registration, { tool, consul, event }));
  }
}

/** @throws OnexError where Consul cannot be asked what is there */
export async function deregisterAll(
  { self, tools }: RegistrationPlan,
  parts: Publishing,
  report: Report,
): Promise<void> {
  const { consul: client } = parts;
  if (self !== undefined) {
    const consul = goneText(await removeService(client, self.id));
    report.services.push(rowOf(self, { consul, event: noEvent }));
  }
  const events = await openEvents(parts.events, tools.length, report);
  for (const { registration, toolName, contract } of tools) {
    const { id } = registration;
    // Before it leaves Consul: who knows both takes it out at once.
    const event = await sayGone(id, events, parts, report);
    const consul = await attempt(report, id, async () => {
      const registrant = await removeService(client, id);
      await removeContracts(client, [{ toolName, key: contract.key }]);
      return goneText(registrant);
    });
    report.services.push(rowOf(registration, { tool: toolName, consul, event }));
  }
}

/** Whoever registered it. @throws OnexError where Consul cannot be asked, or refuses */
export async function deregisterOne(id: string, parts: Publishing, report: Report): Promise<void> {
  const { consul: client } = parts;
  const filter = idFilter([id]);
  const services = await client.agentServices(filter === undefined ? {} : { filter });
  const found = services.find(({ ID }) => ID === id);
  const row = { id, service: found?.Service ?? null, address: null, check: null };
  if (found === undefined) {
    report.services.push({ ...row, tool: null, consul: goneText(undefined), event: noEvent });
    return;
  }
  const claim = claimOf(found.Tags);
  const tool = "toolName" in claim ? claim.toolName : null;
  const events = await openEvents(parts.events, tool === null ? 0 : 1, report);
  const event = tool === null ? noEvent : await sayGone(id, events, parts, report);
  await client.deregisterService(id);
  const key = found.Meta["mcp-contract"];
  if (tool !== null && key !== undefined) await removeContracts(client, [{ toolName: tool, key }]);
  report.services.push({ ...row, tool, consul: goneText("runtime"), event });
}

const goneText = (registrant: Registrant | undefined): string =>
  registrant === undefined ? "not registered" : registrant === "runtime" ? "taken out" : othersText;

/** Kafka, with the topic there; undefined where no event is sent. */
async function openEvents(
  events: EventTarget | undefined,
  count: number,
  report: Report,
): Promise<EventTarget | undefined> {
  if (events === undefined || count === 0) return undefined;
  const limit = new AbortController();
  try {
    await timely(ensureTopic(events, limit.signal));
    return events;
  } catch (error) {
    report.failures.push(`no event is sent to ${events.topic}: ${messageOf(error)}`);
    return undefined;
  } finally {
    limit.abort();
  }
}

const sayGone = (
  id: string,
  events: EventTarget | undefined,
  parts: Publishing,
  report: Report,
): Promise<string> =>
  events === undefined
    ? Promise.resolve(notSent)
    : attempt(report, `the event of ${id}`, async () => {
        await timely(announceGone(parts, id));
        return "deregistered";
      });

/** @throws InfraTimeoutError where Kafka takes too long */
async function timely(work: Promise<void>): Promise<void> {
  if ((await within(work, eventSeconds * 1000)) !== "timeout") return;
  throw new InfraTimeoutError(
    `Kafka has not taken it within ${eventSeconds} s. Do brokers run where event_bus.bootstrap_servers (KAFKA_BOOTSTRAP_SERVERS) says?`,
    { facts: { transport: "kafka", timeout_seconds: eventSeconds } },
  );
}

/** What the work comes to, or that it failed: the reason is in the report then. */
async function attempt(report: Report, what: string, work: () => Promise<string>): Promise<string> {
  try {
    return await work();
  } catch (error) {
    report.failures.push(`${what}: ${messageOf(error)}`);
    return failedText;
  }
}
