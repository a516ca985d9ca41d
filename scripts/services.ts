/**
 * Kafka and Consul for a developer: `npm run services` starts both, prints the variables by which the tests and the
 * runtime find them, and stops them on Ctrl-C.
 */
import { once } from "node:events";
import { SharedServices } from "../test/services/shared.ts";

const begun = Date.now();
const tell = (line: string): void =>
  void process.stderr.write(`${((Date.now() - begun) / 1000).toFixed(0).padStart(4)} s  ${line}\n`);

const interrupted = Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]);
const services = new SharedServices(tell, process.env);
const started = Promise.all([services.address("consul"), services.address("kafka")]);
try {
  const addresses = await Promise.race([started, interrupted.then(() => undefined)]);
  if (addresses !== undefined) {
    const [consul, kafka] = addresses;
    const [host, port] = consul.split(":");
    const variables = {
      CONSUL_HTTP_ADDR: consul,
      CONSUL_HOST: host,
      CONSUL_PORT: port,
      KAFKA_BOOTSTRAP_SERVERS: kafka,
    };
    for (const [name, value] of Object.entries(variables)) console.log(`export ${name}=${value}`);
    tell("Both are up. Ctrl-C stops them and removes their data.");
    await interrupted;
  }
} catch (error) {
  tell(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
} finally {
  await services.stop();
  process.exit();
}
