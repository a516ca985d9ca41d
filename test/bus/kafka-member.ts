/**
 * One member of a group, as a process of its own that can be stopped and go on:
 * `node kafka-member.ts <servers> <topic> <milliseconds per message>`. Says on stdout what it handles.
 */
import { KafkaBus } from "../../src/bus/kafka.ts";

const [servers = "", topic = "", workMs = "0"] = process.argv.slice(2);
const bus = new KafkaBus({ bootstrapServers: servers.split(","), concurrency: 1 });
await bus.start();
await bus.subscribe(topic, topic, async ({ partition, offset }) => {
  process.stdout.write(`${partition}/${offset}\n`);
  await new Promise((resolve) => setTimeout(resolve, Number(workMs)));
});
process.stdout.write("ready\n");
