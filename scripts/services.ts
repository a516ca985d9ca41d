/**
 * Kafka and Consul for a developer: `npm run services` starts both, prints the variables by which the tests and the
 * runtime find them, and stops them on Ctrl-C. With `-- --build` nothing is started: the programs that tests start are
 * built, where they are not there yet, and their paths printed.
 */
import { once } from "node:events";
import { SharedServices } from "../test/services/shared.ts";

const begun = Date.now();
const tell = (line: string): void =>
  void process.stderr.write(`${((Date.now() - begun) / 1000).toFixed(0).padStart(4)} s  ${line}\n`);

const interrupted = Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]);
const services = new SharedServices(tell, process.env);
const isBuild = process.argv[2] === "--build";
const parts = isBuild ? (["consul-program", "kafka-program"] as const) : (["consul", "kafka"] as const);
const started = Promise.all(parts.map((part) => services.address(part)));
try {
  const addresses = await Promise.race([started, interrupted.then(() => undefined)]);
  if (addresses === undefined) process.exitCode = isBuild ? 1 : 0;
  else if (isBuild) console.log(addresses.join("\n"));
  else {
    const [consul = "", kafka] = addresses;
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
