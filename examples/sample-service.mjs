/**
 * The small HTTP service that the sample tools get_order and quote_shipping call.
 *
 *   npm run sample-service            listens on 127.0.0.1:8095 (SAMPLE_SERVICE_PORT)
 *
 * GET  /orders/{id}?currency=EUR     a REST API
 * POST /nodes/quote_shipping         a service that takes the runtime's envelope
 */
import { createServer } from "node:http";
import { argv, env, stderr } from "node:process";
import { json } from "node:stream/consumers";
import { pathToFileURL, URL } from "node:url";

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

async function answer(request) {
  const url = new URL(request.url ?? "/", "http://localhost");
  if (request.method === "GET" && url.pathname.startsWith("/orders/")) return getOrder(url);
  if (request.method === "POST" && url.pathname === "/nodes/quote_shipping")
    return quoteShipping(await json(request));
  return [404, { error: "There is nothing here." }];
}

/** Starts the service; resolves once it listens. @param {number} port 0 picks a free one */
export async function startSampleService(port = 0) {
  const server = createServer((request, response) => {
    answer(request)
      .catch((error) => [400, { error: error.message }])
      .then(([status, body]) =>
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body)),
      );
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(port, "127.0.0.1", resolve));
  return server;
}

if (import.meta.url === pathToFileURL(argv[1] ?? "").href) {
  const server = await startSampleService(Number(env.SAMPLE_SERVICE_PORT ?? 8095));
  stderr.write(`Sample service on http://127.0.0.1:${server.address().port}\n`);
}
