import { expect, test } from "vitest";
import { KafkaClients } from "../../src/bus/kafka-clients.ts";

class Spoiled extends Error {}

function setUp(): {
  clients: KafkaClients<{ readonly id: number; readonly link: { cut(): void } }>;
  closed: number[];
} {
  const closed: number[] = [];
  let made = 0;
  const clients = new KafkaClients(
    () => {
      made += 1;
      const id = made;
      return { id, link: { cut: () => void closed.push(id) } };
    },
    (thrown) => thrown instanceof Spoiled,
  );
  return { clients, closed };
}

const idOf = ({ id }: { readonly id: number }): Promise<number> => Promise.resolve(id);

test("one client serves all, and those after a failure that is of no matter to others", async () => {
  const { clients, closed } = setUp();
  expect(await Promise.all([clients.use(idOf), clients.use(idOf)])).toEqual([1, 1]);
  await expect(clients.use(() => Promise.reject(new Error("too large")))).rejects.toThrow("too large");
  expect(await clients.use(idOf)).toBe(1);
  expect(closed).toEqual([]);
});

test("a failure that spoils a client ends nobody else's use of it; who comes next gets another one", async () => {
  const { clients, closed } = setUp();
  const [slow, late] = [Promise.withResolvers<string>(), Promise.withResolvers<never>()];
  const running = clients.use(() => slow.promise);
  const failing = clients.use(() => late.promise);
  const spoil = (): Promise<never> => clients.use(() => Promise.reject(new Spoiled()));
  await expect(spoil()).rejects.toThrow(Spoiled);
  expect(await clients.use(idOf)).toBe(2);
  // A failure of the former client says nothing about the present one.
  late.reject(new Spoiled());
  await expect(failing).rejects.toThrow(Spoiled);
  expect(await clients.use(idOf)).toBe(2);
  expect([closed, clients.open.map(({ id }) => id)]).toEqual([[], [1, 2]]);
  slow.resolve("arrived");
  expect(await running).toBe("arrived");
  expect([closed, clients.open.map(({ id }) => id)]).toEqual([[1], [2]]);
});

test("one that is retired ends nobody's use of it, and is closed after that; who comes next gets another one", async () => {
  const { clients, closed } = setUp();
  const slow = Promise.withResolvers<string>();
  const running = clients.use(async (client) => {
    clients.retire(client);
    return await slow.promise;
  });
  expect(await clients.use(idOf)).toBe(2);
  expect(closed).toEqual([]);
  slow.resolve("arrived");
  expect(await running).toBe("arrived");
  expect([closed, await clients.use(idOf)]).toEqual([[1], 2]);
});

test("the end of all closes every client at once, those too that are in use, each once", async () => {
  const { clients, closed } = setUp();
  const slow = Promise.withResolvers<undefined>();
  const running = clients.use(() => slow.promise);
  await expect(clients.use(() => Promise.reject(new Spoiled()))).rejects.toThrow(Spoiled);
  await clients.use(idOf);
  clients.cut();
  expect(closed).toEqual([1, 2]);
  slow.resolve(undefined);
  await running;
  expect(closed).toEqual([1, 2]);
});
