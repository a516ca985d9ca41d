/** A TCP relay that counts connections, leads elsewhere, and cuts what passes through it. */
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import type { Address } from "./consul-agent.ts";

export class Relay implements AsyncDisposable {
  readonly host = "127.0.0.1";
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #target: Address;
  #connections = 0;
  #most = 0;

  constructor(target: Address) {
    this.#target = target;
    this.#server = createServer((socket) => this.#pass(socket));
  }

  async listen(): Promise<this> {
    this.#server.listen(0, this.host);
    await once(this.#server, "listening");
    return this;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get mostConnections(): number {
    return this.#most;
  }

  /** New connections go there. */
  lead(target: Address): void {
    this.#target = target;
  }

  /** Ends the present connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #pass(socket: Socket): void {
    this.#connections += 1;
    this.#most = Math.max(this.#most, this.#connections);
    const beyond = connect(this.#target.port, this.#target.host);
    for (const one of [socket, beyond]) {
      this.#sockets.add(one);
      one.on("error", () => undefined);
      one.on("close", () => {
        this.#sockets.delete(one);
        socket.destroy();
        beyond.destroy();
      });
    }
    socket.on("close", () => (this.#connections -= 1));
    socket.pipe(beyond).pipe(socket);
  }
}

export const relayTo = (target: Address): Promise<Relay> => new Relay(target).listen();
