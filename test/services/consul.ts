/** A Consul server of one's own, with its data kept over a restart, to be killed at will. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "./ports.ts";
import { ServiceProcess, untilReady } from "./process.ts";
import { consulProgram, type Progress } from "./programs.ts";

export interface ConsulOptions {
  /** Merged over the agent's configuration, at the top level: `acl`, `limits`, `tls` and so on. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Serves HTTPS as well; PEM. `ca` is what clients' certificates are verified with. */
  readonly tls?: { readonly key: string; readonly cert: string; readonly ca?: string };
  readonly progress?: Progress;
}

export interface Consul extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** Where `tls` was given. */
  readonly httpsPort: number | undefined;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
  /** Starts it again on the same ports and data; resolves when it has a leader. Kills it first where it runs. */
  restart(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

const host = "127.0.0.1";
/** Another process may take a port between the question and the start. */
const attempts = 3;

/** Starts a server; resolves when it has a leader. Rejects with its output when it ends first. */
export async function startConsul(options: ConsulOptions = {}): Promise<Consul> {
  const program = await consulProgram(options.progress ?? (() => undefined));
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(program, options);
    } catch (error) {
      if (attempt === attempts || !/address already in use/.test(String(error))) throw error;
    }
  }
}

async function startOnce(program: string, options: ConsulOptions): Promise<Consul> {
  const folder = await mkdtemp(join(tmpdir(), "onex-consul-"));
  const [http, server, serf, https] = (await freePorts(4)) as [number, number, number, number];
  const tls = options.tls;
  const config: Record<string, unknown> = {
    server: true,
    bootstrap_expect: 1,
    node_name: "test",
    data_dir: join(folder, "data"),
    bind_addr: host,
    client_addr: host,
    log_level: "warn",
    // The defaults wait for machines far away.
    performance: { raft_multiplier: 1 },
    // It would ask its makers for a newer version.
    disable_update_check: true,
    ports: {
      http,
      server,
      serf_lan: serf,
      serf_wan: -1,
      dns: -1,
      grpc: -1,
      grpc_tls: -1,
      https: tls ? https : -1,
    },
    ...(tls && { tls: { https: await tlsFiles(folder, tls) } }),
    ...options.config,
  };
  const file = join(folder, "config.json");
  await writeFile(file, JSON.stringify(config));

  const launch = async (): Promise<ServiceProcess> => {
    const launched = new ServiceProcess(program, ["agent", "-config-file", file], folder);
    await untilReady("Consul", launched, () => hasLeader(http)).catch(async (error: unknown) => {
      await launched.kill();
      throw error;
    });
    return launched;
  };
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  let agent = await launch().catch(async (error: unknown) => {
    await remove();
    throw error;
  });
  const stop = async (): Promise<void> => {
    await agent.kill();
    await remove();
  };
  return {
    host,
    port: http,
    httpsPort: tls && https,
    kill: () => agent.kill(),
    restart: async () => {
      await agent.kill();
      agent = await launch();
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

async function tlsFiles(
  folder: string,
  tls: NonNullable<ConsulOptions["tls"]>,
): Promise<Record<string, unknown>> {
  const paths: Record<string, unknown> = {};
  for (const [key, text] of [
    ["key_file", tls.key],
    ["cert_file", tls.cert],
    ["ca_file", tls.ca],
  ] as const) {
    if (text === undefined) continue;
    paths[key] = join(folder, key);
    await writeFile(join(folder, key), text, { mode: 0o600 });
  }
  return { ...paths, verify_incoming: tls.ca !== undefined };
}

/** Rejects until the server at the port has a leader that answers consistent reads. */
export async function hasLeader(port: number, at: string = host): Promise<void> {
  const answer = await fetch(`http://${at}:${port}/v1/status/leader`);
  if ((await answer.text()).length <= '""'.length) throw new Error("no leader yet");
  const read = await fetch(`http://${at}:${port}/v1/catalog/nodes?consistent`);
  await read.arrayBuffer();
  if (!read.ok) throw new Error(`consistent reads answer ${read.status}`);
}
