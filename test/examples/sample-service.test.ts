/** The sample service as a process of its own, at an agent that is slow. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { root } from "../support/runtime.ts";

it("takes itself out only once a registration that is under way is over, so that it cannot come back", async () => {
  const order: string[] = [];
  const held = Promise.withResolvers<ServerResponse>();
  const agent = createServer((request, response) => {
    const path = request.url!.replace(/^\/v1\//, "");
    request.resume();
    if (path === "agent/service/register") {
      held.resolve(response);
      return;
    }
    if (request.method === "PUT") order.push(path.replace(/-\d+$/, ""));
    response.writeHead(request.method === "GET" ? 404 : 200).end();
  });
  await once(agent.listen(0, "127.0.0.1"), "listening");
  const sample = spawn(process.execPath, [join(root, "examples/sample-service.mjs")], {
    env: {
      PATH: process.env["PATH"],
      SAMPLE_SERVICE_PORT: "0",
      CONSUL_HTTP_ADDR: `127.0.0.1:${(agent.address() as AddressInfo).port}`,
    },
    stdio: "ignore",
  });
  onTestFinished(() => {
    sample.kill("SIGKILL");
    agent.close();
    agent.closeAllConnections();
  });
  const exit = once(sample, "exit");
  const registration = await held.promise;
  sample.kill("SIGTERM");
  // For one that does not wait to show itself; one that waits passes however long this is.
  await new Promise((resolve) => setTimeout(resolve, 300));
  order.push("registered");
  registration.writeHead(200).end();
  expect(await exit).toEqual([0, null]);
  expect(order).toEqual([
    "kv/onex/contracts/nodes/track_parcel",
    "registered",
    "agent/service/deregister/sample-parcels-127.0.0.1",
  ]);
});
