/**
 * The Dockerfile, without Docker: its instructions are read, and its stages carried out in folders: COPY copies what
 * .dockerignore lets through, RUN runs, and the image's command and health check run in the last folder. Needs what
 * `npm ci` needs: the registry.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { access, cp, mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { freePorts } from "../services/ports.ts";
import { root } from "../support/runtime.ts";
import { readCompose, readDockerfile, type Stage } from "./files.ts";

const run = promisify(execFile);

let stages: Stage[];
let folder: string;
/** Where each stage's `/app` is. */
let app: string;

beforeAll(async () => {
  stages = await readDockerfile();
  folder = await mkdtemp(join(tmpdir(), "onex-image-"));
  const context = join(folder, "context");
  await copyContext(context);
  for (const stage of stages) app = await build(stage, context);
}, 600_000);

afterAll(() => rm(folder, { recursive: true, force: true }));

/** What `docker build` would send: .dockerignore leaves everything out but what follows a `!`. */
async function copyContext(to: string): Promise<void> {
  const lines = (await readFile(join(root, ".dockerignore"), "utf8"))
    .split("\n")
    .filter((line) => /^[^#]/.test(line));
  expect(lines[0]).toBe("*");
  for (const line of lines.slice(1)) {
    expect(line).toMatch(/^![\w./-]+$/);
    await cp(join(root, line.slice(1)), join(to, line.slice(1)), { recursive: true });
  }
}

async function build({ name, instructions }: Stage, context: string): Promise<string> {
  const place = (stage: string, path: string): string => join(folder, `stage-${stage}`, path);
  const inside = (path: string): string => place(name, path.startsWith("/") ? path : join("/app", path));
  await mkdir(inside("/app"), { recursive: true });
  for (const { name: instruction, args, flags, text } of instructions) {
    if (instruction === "WORKDIR") expect(text).toBe("/app");
    if (instruction === "COPY") {
      const [target = "", ...sources] = args.toReversed();
      for (const source of sources) {
        const from = flags["from"] === undefined ? join(context, source) : place(flags["from"], source);
        const isFolder = target.endsWith("/");
        await cp(from, isFolder ? join(inside(target), basename(source)) : inside(target), {
          recursive: true,
        });
      }
    }
    // Only root may give files away; that the volume is the user's is Docker's business.
    if (instruction === "RUN") await shell(text.replace(/ && chown \S+ \S+/, ""), inside("/app"));
  }
  return inside("/app");
}

async function shell(text: string, cwd: string): Promise<void> {
  await run("/bin/sh", ["-c", text], { cwd, env: cleanEnv() }).catch((error: unknown) => {
    const { stdout, stderr } = error as { readonly stdout: string; readonly stderr: string };
    throw new Error(`RUN ${text} failed: ${stdout}${stderr}`, { cause: error });
  });
}

/** As in the image: nothing of this checkout's environment but where Node is. */
const cleanEnv = (): NodeJS.ProcessEnv => ({
  PATH: `${dirname(process.execPath)}:/usr/local/bin:/usr/bin:/bin`,
  HOME: process.env["HOME"],
  npm_config_prefer_offline: "true",
});

const last = (): Stage => stages.at(-1)!;
const only = (name: string) => last().instructions.filter((instruction) => instruction.name === name);

it("every stage starts from the Node that the package asks for, and the last is none of the others", async () => {
  const { engines } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const major = /\d+/.exec(engines.node)![0];
  expect(stages.map(({ base }) => base)).toEqual(stages.map(() => `node:${major}-alpine`));
  expect(stages.length).toBeGreaterThan(1);
});

it("every file that is copied is there", async () => {
  for (const { instructions } of stages) {
    for (const { args, flags } of instructions.filter(({ name }) => name === "COPY")) {
      if (flags["from"] !== undefined) expect(stages.map(({ name }) => name)).toContain(flags["from"]);
      else for (const source of args.slice(0, -1)) await access(join(root, source));
    }
  }
});

it("the image's processes are not root's", () => {
  expect(only("USER").map(({ text }) => text)).toEqual(["node"]);
  const instructions = last().instructions.map(({ name }) => name);
  expect(instructions.slice(instructions.indexOf("USER"))).not.toContain("COPY");
});

it("the image holds the built runtime and what it needs, no sources, no tests, no tools", async () => {
  expect((await readdir(app)).sort()).toEqual([
    "bin",
    "contracts",
    "dist",
    "examples",
    "node_modules",
    "package.json",
    "state",
  ]);
  const installed = await readdir(join(app, "node_modules"));
  const { dependencies, devDependencies } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  expect(installed).toEqual(
    expect.arrayContaining(Object.keys(dependencies).map((name) => name.split("/")[0])),
  );
  for (const tool of ["typescript", "vitest", "eslint", "node"]) {
    expect(devDependencies).toHaveProperty(tool);
    expect(installed).not.toContain(tool);
  }
});

it("the image's command serves, its health check passes, and fails once it has stopped", async () => {
  const [command, ...args] = only("CMD")[0]!.args;
  const [check, ...checkArgs] = /^CMD /.test(only("HEALTHCHECK")[0]!.text)
    ? only("HEALTHCHECK")[0]!.args
    : [];
  expect([command, check]).toEqual(["node", "node"]);
  const [mcp, operators] = await freePorts(2);
  const env = {
    ...cleanEnv(),
    NODE_ENV: "production",
    ONEX_MCP_PORT: String(mcp),
    ONEX_HTTP_PORT: String(operators),
  };
  const server = spawn(process.execPath, args, { cwd: app, env, stdio: ["ignore", "ignore", "pipe"] });
  const lines: string[] = [];
  createInterface({ input: server.stderr }).on("line", (line) => lines.push(line));
  const healthy = (): Promise<boolean> =>
    run(process.execPath, checkArgs, { env }).then(
      () => true,
      () => false,
    );
  try {
    await expect.poll(healthy, { timeout: 30_000 }).toBe(true);
    await expect.poll(() => lines.join("\n")).toContain("onex-runtime is ready");
    const tools = await (await fetch(`http://127.0.0.1:${mcp}/mcp/tools`)).text();
    expect(tools).toContain("text_statistics");
  } finally {
    server.kill("SIGTERM");
    const [code] = await once(server, "exit");
    expect(code, lines.join("\n")).toBe(0);
  }
  expect(await healthy()).toBe(false);
}, 60_000);

it("what compose runs in the image is in it", async () => {
  const { services } = await readCompose();
  for (const { build: built, command } of Object.values(services)) {
    if (built === undefined) continue;
    expect(command![0]).toBe("node");
    await access(join(app, command![1]!));
  }
});
