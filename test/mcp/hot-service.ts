/** The service behind the tools that both doors call. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface TestService {
  readonly url: string;
  close(): Promise<void>;
}

export async function startService(): Promise<TestService> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.once("end", () => {
      const body = Buffer.concat(chunks);
      const send = (type: string, text: Buffer | string, status = 200): void => {
        response.writeHead(status, { "content-type": type }).end(text);
      };
      const json = (text: Buffer | string, status?: number): void => send("application/json", text, status);
      switch (request.url) {
        case "/echo":
          json(body.length === 0 ? "{}" : body);
          break;
        case "/onex":
          json(JSON.stringify((JSON.parse(body.toString()) as { payload: unknown }).payload));
          break;
        case "/array":
          json("[1,2,{}]");
          break;
        case "/number":
          json("5.50");
          break;
        case "/text":
          send("text/plain; charset=utf-8", "grüß dich");
          break;
        case "/refused":
          json('{"message":"no such order"}', 404);
          break;
        case "/failing":
          // Unusable, and no matter for a breaker, which would tell the doors apart.
          response.writeHead(302, { location: "/echo" }).end();
          break;
        default:
          response.writeHead(204).end();
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
