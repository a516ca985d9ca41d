/** A loopback port by which the test files of one run, each a process of its own, share one set of services. */
import { once } from "node:events";
import { createServer, get, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import { partNames, type SharedServices } from "./shared.ts";

export type Answer = { readonly address: string } | { readonly missing: string };

/** GET /<part> answers when the part is up, or why it cannot be had. */
export async function listen(
  services: SharedServices,
): Promise<{ readonly url: string; readonly close: () => Promise<void> }> {
  const server = createServer((request, response) => {
    const part = partNames.find((name) => request.url === `/${name}`);
    const answered: Promise<Answer> =
      part === undefined
        ? Promise.resolve({ missing: `there is no part ${request.url}` })
        : services.address(part).then(
            (address) => ({ address }),
            (error: unknown) => ({ missing: reasonOf(error) }),
          );
    void answered.then((answer) => response.end(JSON.stringify(answer)));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: async () => {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Asks the port above; waits as long as a build takes. */
export async function ask(url: string, part: string): Promise<Answer> {
  // Not fetch, which gives up on an answer after five minutes.
  const [response] = (await once(get(`${url}/${part}`), "response")) as [IncomingMessage];
  return (await json(response)) as Answer;
}

/** The whole chain: the first says what failed, the last what to do. */
function reasonOf(error: unknown): string {
  const texts: string[] = [];
  for (let cause = error; cause instanceof Error; cause = cause.cause) texts.push(cause.message);
  return texts.join(": ").replaceAll(/\s+/g, " ");
}
