/**
 * The small HTTP service that the sample tools get_order and quote_shipping call.
 *
 *   npm run sample-service            listens on 127.0.0.1:8095 (SAMPLE_SERVICE_HOST, SAMPLE_SERVICE_PORT)
 *
 * GET  /orders/{id}?currency=EUR     a REST API
 * POST /nodes/quote_shipping         a service that takes the runtime's envelope
 * POST /nodes/track_parcel           another one; no contract file names it: the service registers itself as this tool
 * GET  /health                       what Consul checks
 *
 * CONSUL_HTTP_ADDR=host:port         registers track_parcel in Consul, with its contract in the KV store
 * KAFKA_BOOTSTRAP_SERVERS=host:port  registers track_parcel by an event on Kafka
 * SAMPLE_SERVICE_ADDRESS=host:port   where others reach this service; by default where it listens
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import process, { argv, env, exit, stderr } from "node:process";
import { json } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL, URL } from "node:url";

const { AbortController, AbortSignal, fetch } = globalThis;

const orders = new Map([
  ["A-1001", { state: "shipped", total: 59.9, items: [{ sku: "lamp", quantity: 1 }] }],
  ["A-1002", { state: "open", total: 12.5, items: [{ sku: "bulb", quantity: 5 }] }],
  ["B-2001", { state: "delivered", total: 240, items: [{ sku: "chair", quantity: 4 }] }],
]);
const dollarsPerEuro = 1.1;
const pricePerKg = { DE: 1.2, FR: 1.5, US: 6 };

function getOrder(url) {
  const id = decodeURIComponent(url.pathname.slice("/orders/".length));
  const order = orders.get(id);
  if (order === undefined) return [404, { error: `There is no order ${id}.` }];
  const currency = url.searchParams.get("currency") ?? "EUR";
  const total = currency === "USD" ? Math.round(order.total * dollarsPerEuro * 100) / 100 : order.total;
  return [200, { order: { order_id: id, ...order, total, currency } }];
}

function quoteShipping({ payload }) {
  const { weight_kg: weight, country, express = false } = payload;
  const perKg = pricePerKg[country];
  if (perKg === undefined) return [200, { success: false, error: `We do not ship to ${country}.` }];
  const price = (4 + perKg * weight) * (express ? 2 : 1);
  return [200, { price: Math.round(price * 100) / 100, currency: "EUR", days: express ? 1 : 4 }];
}

function trackParcel({ payload }) {
  const order = orders.get(payload.order_id);
  if (order === undefined) return [200, { success: false, error: `There is no order ${payload.order_id}.` }];
  return [200, { order_id: payload.order_id, state: order.state, moving: order.state === "shipped" }];
}

async function answer(request) {
  const url = new URL(request.url ?? "/", "http://localhost");
  if (request.method === "GET" && url.pathname === "/health") return [200, { status: "healthy" }];
  if (request.method === "GET" && url.pathname.startsWith("/orders/")) return getOrder(url);
  if (request.method === "POST" && url.pathname === "/nodes/quote_shipping")
    return quoteShipping(await json(request));
  if (request.method === "POST" && url.pathname === "/nodes/track_parcel")
    return trackParcel(await json(request));
  return [404, { error: "There is nothing here." }];
}

/** Starts the service; resolves once it listens. @param {number} port 0 picks a free one */
export async function startSampleService(port = 0, host = "127.0.0.1") {
  const server = createServer((request, response) => {
    answer(request)
      .catch((error) => [400, { error: error.message }])
      .then(([status, body]) =>
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body)),
      );
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(port, host, resolve));
  return server;
}

/** What both ways of registering say of the tool. */
const tool = {
  title: "Track a parcel",
  description: "Says whether the parcel of an order of the sample shop is on its way.",
  timeout_seconds: 10,
  annotations: { read_only: true, idempotent: true },
  input_schema: {
    type: "object",
    properties: { order_id: { type: "string", pattern: "^[A-Z]-[0-9]{4}$" } },
    required: ["order_id"],
    additionalProperties: false,
  },
};
const node = { node_type: "ORCHESTRATOR", node_version: "1.0.0" };
const path = "/nodes/track_parcel";
const tags = ["mcp-enabled", "node-type:orchestrator", "mcp-tool:track_parcel"];
const serviceName = "sample-parcels";

/** Registers at the agent; again where the agent has forgotten it. Gives what takes it out. */
function registerInConsul(agent, address, serviceId) {
  const [host, port] = address.split(":");
  const put = async (where, body) => {
    const answered = await fetch(`http://${agent}/v1/${where}`, {
      method: "PUT",
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(5000),
    });
    if (!answered.ok) throw new Error(`Consul answers ${answered.status}: ${await answered.text()}`);
  };
  const mcp = { expose: true, tool_name: "track_parcel", ...tool, execution: { kind: "onex", path } };
  const register = async () => {
    await put("kv/onex/contracts/nodes/track_parcel", { name: "track_parcel", ...node, mcp });
    await put("agent/service/register", {
      ID: serviceId,
      Name: serviceName,
      Address: host,
      Port: Number(port),
      Tags: tags,
      Check: {
        HTTP: `http://${address}/health`,
        Interval: "2s",
        DeregisterCriticalServiceAfter: "1m",
        // It listens already: without this it gets no calls before the first check.
        Status: "passing",
      },
    });
  };
  const stop = keepTrying(async () => {
    const known = await fetch(`http://${agent}/v1/agent/service/${serviceId}`, {
      signal: AbortSignal.timeout(5000),
    });
    await known.body?.cancel();
    if (known.status === 404) await register();
  });
  return async () => {
    await stop();
    await put(`agent/service/deregister/${serviceId}`);
  };
}

/** Publishes the event that registers it. Resolves to what publishes that it is gone. */
async function registerOnKafka(servers, address, serviceId) {
  const { Kafka, logLevel } = await import("kafkajs");
  const kafka = new Kafka({ clientId: serviceId, brokers: servers.split(","), logLevel: logLevel.NOTHING });
  const producer = kafka.producer({ retry: { retries: 0 } });
  const publish = async (event_type, more) => {
    const emitted_at = new Date().toISOString();
    const event = { event_id: randomUUID(), event_type, emitted_at, service_id: serviceId, ...more };
    await producer.connect();
    await producer.send({
      topic: "node.registration.v1",
      messages: [{ key: serviceId, value: JSON.stringify(event) }],
    });
  };
  const registered = {
    node_id: serviceId,
    service_name: serviceName,
    ...node,
    tags,
    endpoint: `http://${address}`,
    ...tool,
    execution: { kind: "onex", path },
  };
  // The topic is the runtime's to make: until it is there, or Kafka is, this is tried again.
  const stop = keepTrying(async () => {
    await publish("registered", registered);
    return true;
  });
  return async () => {
    await stop();
    await publish("deregistered");
    await producer.disconnect();
  };
}

/**
 * Now and every two seconds until an attempt gives true, one at a time; one that fails says so. The value stops it, and
 * resolves when nothing is under way that could undo what comes next.
 */
function keepTrying(attempt) {
  const end = new AbortController();
  const run = async () => {
    for (let last; !end.signal.aborted;) {
      try {
        if ((await attempt()) === true) return;
      } catch (error) {
        if (error.message !== last) stderr.write(`${error.message}; trying again\n`);
        last = error.message;
      }
      await sleep(2000, undefined, { signal: end.signal }).catch(() => undefined);
    }
  };
  const ended = run();
  return async () => {
    end.abort();
    await ended;
  };
}

if (import.meta.url === pathToFileURL(argv[1] ?? "").href) {
  const host = env.SAMPLE_SERVICE_HOST ?? "127.0.0.1";
  const server = await startSampleService(Number(env.SAMPLE_SERVICE_PORT ?? 8095), host);
  const { port } = server.address();
  stderr.write(`Sample service on http://${host}:${port}\n`);
  const address = env.SAMPLE_SERVICE_ADDRESS ?? `127.0.0.1:${port}`;
  const serviceId = `${serviceName}-${address.replace(":", "-")}`;
  const { CONSUL_HTTP_ADDR: consul, KAFKA_BOOTSTRAP_SERVERS: kafka } = env;
  const deregister = await Promise.all([
    ...(consul ? [registerInConsul(consul, address, serviceId)] : []),
    ...(kafka ? [registerOnKafka(kafka, address, serviceId)] : []),
  ]);
  await Promise.race([once(process, "SIGTERM"), once(process, "SIGINT")]);
  const outcomes = await Promise.allSettled(deregister.map((gone) => gone()));
  exit(outcomes.every(({ status }) => status === "fulfilled") ? 0 : 1);
}
