/** Where the services of a run come from, and what a run says that cannot have them. */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { root } from "../support/runtime.ts";
import { describeWithOwnConsul, startConsul } from "./index.ts";
import { freePorts } from "./ports.ts";
import { SharedServices } from "./shared.ts";

const vitest = join(root, "node_modules/vitest/vitest.mjs");
const fixture = join(import.meta.dirname, "fixture");
const silent = (): void => undefined;

let folder: string;
let cache: string;
/** A machine with nothing but what a test puts there. */
let bare: NodeJS.ProcessEnv;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "onex-machine-"));
  for (const program of ["sh", "cat", "sleep", "rm"]) await symlink(`/bin/${program}`, join(folder, program));
  cache = join(folder, "cache/onex-runtime-services");
  bare = { PATH: folder, XDG_CACHE_HOME: join(folder, "cache"), TMPDIR: folder, NO_COLOR: "1" };
});

afterEach(() => rm(folder, { recursive: true, force: true }));

/** A program of that machine, written in sh. */
async function program(name: string, script: string): Promise<void> {
  await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`);
  await chmod(join(folder, name), 0o755);
}

const said = async (file: string): Promise<string[]> =>
  (await readFile(join(folder, file), "utf8").catch(() => "")).trimEnd().split("\n");

/** A process of its own that builds a program or asks for a shared service. */
const start = (what: "build" | "shared"): ChildProcess =>
  spawn(process.execPath, [join(fixture, "start.ts"), what], { env: bare });

describe("a run on a machine without the services", () => {
  const run = (env: NodeJS.ProcessEnv): Promise<{ readonly code: number; readonly output: string }> =>
    promisify(execFile)(
      process.execPath,
      [vitest, "run", "--config", join(fixture, "vitest.config.ts"), "--root", root],
      { env },
    ).then(
      ({ stdout, stderr }) => ({ code: 0, output: stdout + stderr }),
      (error: unknown) => {
        const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
        return { code, output: stdout + stderr };
      },
    );

  it("skips what needs them, and its last lines say which files and why", async () => {
    const { code, output } = await run(bare);
    expect(code, output).toBe(0);
    expect(output).toContain("1 passed | 1 skipped");
    expect(output.trimEnd().split("\n").slice(-2)).toEqual([
      "not tested, for want of a part of this machine:",
      expect.stringMatching(
        /^ {2}test\/services\/fixture\/needs-services\.ts: no consul: .*install Go, 1\.24/,
      ),
    ]);
  });

  it("fails with ONEX_REQUIRE_SERVICES=1", async () => {
    const { code, output } = await run({ ...bare, ONEX_REQUIRE_SERVICES: "1" });
    expect(code).toBe(1);
    expect(output).toContain("missing, and ONEX_REQUIRE_SERVICES=1: no consul");
    expect(output).toContain("1 failed | 1 passed");
  });

  it("says that an address of the environment does not answer, rather than start one", async () => {
    const [port] = await freePorts(1);
    const { output } = await run({ ...bare, CONSUL_HTTP_ADDR: `127.0.0.1:${port}` });
    expect(output).toContain(`no Consul with a leader at 127.0.0.1:${port} (CONSUL_HTTP_ADDR)`);
  });
});

describeWithOwnConsul("the environment's services", () => {
  it("win over any other, with or without http:// before the address", async () => {
    await using consul = await startConsul();
    const address = `127.0.0.1:${consul.port}`;
    for (const value of [address, `http://${address}`]) {
      const services = new SharedServices(silent, {
        CONSUL_HTTP_ADDR: value,
        KAFKA_BOOTSTRAP_SERVERS: address,
      });
      expect(await services.address("consul")).toBe(address);
      expect(await services.address("kafka")).toBe(address);
      await services.stop();
    }
    // Those of the environment are not this run's to stop.
    expect((await fetch(`http://${address}/v1/status/leader`)).status).toBe(200);
  });
});

describe("with docker compose", () => {
  it("a service is a container, removed also when the process that asked for it is killed", async () => {
    await program("docker", `echo "$CONSUL_PUBLISHED_PORT $*" >> "${folder}/docker.log"`);
    const child = start("shared");
    const [address] = (await once(createInterface({ input: child.stdout! }), "line")) as [string];
    const port = address.split(":")[1]!;
    child.kill("SIGKILL");
    const compose = `compose --project-name onex-test-consul-${child.pid} --file ${root}docker-compose.yml`;
    await expect
      .poll(() => said("docker.log"))
      .toEqual([
        " info",
        " compose version",
        `${port} ${compose} up --detach --wait consul`,
        `${port} ${compose} down --volumes --timeout 1`,
      ]);
  });
});

describe("a program that is not in the cache", () => {
  const build = (): ChildProcess => start("build");
  const exitOf = async (child: ChildProcess): Promise<number | null> =>
    ((await once(child, "exit")) as [number])[0];
  /** Stands for a build that takes as long as the test wants: until the file `go-on` is there. */
  const goScript = (): string => `
    echo "$1" >> "${folder}/go.log"
    if [ "$1" = version ]; then echo go version go1.24.0 linux/amd64; exit; fi
    until [ -e "${folder}/go-on" ]; do sleep 0.02; done
    echo built > consul`;
  const cached = async (): Promise<string[]> => (await readdir(cache)).sort();

  it("is built once for two runs that want it at the same time", async () => {
    await program("go", goScript());
    const both = [build(), build()];
    await expect.poll(async () => (await said("go.log")).includes("build")).toBe(true);
    await writeFile(join(folder, "go-on"), "");
    expect(await Promise.all(both.map(exitOf))).toEqual([0, 0]);
    expect((await said("go.log")).filter((line) => line === "build")).toHaveLength(1);
    expect(await cached()).toEqual(["consul-1.19.2"]);
  });

  it("is built again where a run was killed while it built: nothing half-built is taken, no lock stays", async () => {
    await program("go", goScript());
    const killed = build();
    await expect.poll(async () => (await said("go.log")).includes("build")).toBe(true);
    killed.kill("SIGKILL");
    await once(killed, "exit");
    expect(await cached()).not.toContain("consul-1.19.2");
    await writeFile(join(folder, "go-on"), "");
    expect(await exitOf(build())).toBe(0);
    expect(await cached()).toContain("consul-1.19.2");
    expect(await cached()).not.toContain("consul-1.19.2.lock");
  });

  it("is built without what older builds left", async () => {
    await program("go", goScript());
    await writeFile(join(folder, "go-on"), "");
    const left = join(cache, "consul-1.19.2.build-killed");
    await mkdir(left, { recursive: true });
    await utimes(left, 0, 0);
    expect(await exitOf(build())).toBe(0);
    expect(await cached()).toEqual(["consul-1.19.2"]);
  });

  it("can be interrupted while it is built", async () => {
    await program("go", goScript());
    const kafka = createServer().listen(0, "127.0.0.1");
    onTestFinished(() => void kafka.close());
    await once(kafka, "listening");
    const { port } = kafka.address() as AddressInfo;
    const developer = spawn(process.execPath, [join(root, "scripts/services.ts")], {
      env: { ...bare, KAFKA_BOOTSTRAP_SERVERS: `127.0.0.1:${port}` },
    });
    onTestFinished(() => void developer.kill("SIGKILL"));
    await expect.poll(async () => (await said("go.log")).includes("build")).toBe(true);
    developer.kill("SIGINT");
    expect(await once(developer, "exit")).toEqual([0, null]);
    await writeFile(join(folder, "go-on"), "");
  });

  it("whose build fails is reported with the build's last lines", async () => {
    await program("go", 'case "$1" in version) echo go1.24.0;; *) echo no such module >&2; exit 3;; esac');
    const child = build();
    const lines: string[] = [];
    createInterface({ input: child.stderr! }).on("line", (line) => lines.push(line));
    expect(await exitOf(child)).toBe(1);
    expect(lines.join("\n")).toMatch(/ended with 3:\n.*no such module/);
    expect(await cached()).toEqual([]);
  });
});
