/**
 * Kafka and Consul as programs of this machine: from the package managers of their languages, kept in
 * `$XDG_CACHE_HOME/onex-runtime-services` (`~/.cache/...`), outside the checkout.
 *
 * 1. A program appears in the cache whole, by a rename; a build that is cut off leaves nothing that could be taken for one.
 * 2. The lock only saves a second run the same work: two builds at once would be slow, not wrong.
 */
import { execFile, spawn } from "node:child_process";
import {
  access,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

export type Progress = (line: string) => void;

export const consulVersion = "1.19.2";
export const kafkaVersion = "4.1.1";

export const cacheFolder = (): string =>
  join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "onex-runtime-services");

const run = promisify(execFile);

/** The path of the `consul` binary; built from its Go modules the first time (minutes). */
export const consulProgram = (progress: Progress): Promise<string> =>
  cached(`consul-${consulVersion}`, progress, async (folder) => {
    const go = await goCommand(folder, progress);
    await writeFile(join(folder, "go.mod"), goModule);
    const env = { ...process.env, GOFLAGS: "-mod=mod", GOTOOLCHAIN: "auto" };
    await command(go, ["build", "-v", "-o", "consul", "github.com/hashicorp/consul"], {
      folder,
      env,
      progress,
    });
    return "consul";
  });

/** The folder of Kafka's jars; from Maven the first time. */
export async function kafkaProgram(progress: Progress): Promise<string> {
  const java = "a Java runtime, 17 or newer (Debian: default-jre-headless)";
  const { stderr } = await requireProgram("java", ["-version"], java);
  const major = Number(/version "(\d+)/.exec(stderr)?.[1]);
  if (!(major >= 17)) throw new Error(`java is version ${major}; install ${java}`);
  return cached(`kafka-${kafkaVersion}`, progress, async (folder) => {
    await requireProgram("mvn", ["-version"], "Maven (Debian: maven)");
    await writeFile(join(folder, "pom.xml"), mavenProject);
    const goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
    const args = ["-B", goal, "-DincludeScope=runtime", "-DoutputDirectory=jars"];
    await command("mvn", args, { folder, env: process.env, progress });
    return "jars";
  });
}

/** These tags of go-msgpack were moved after they were published: their checksums no longer hold. */
const goModule = `module onex-runtime-test-services

go 1.24

require github.com/hashicorp/consul v${consulVersion}

tool github.com/hashicorp/consul

exclude (
	github.com/hashicorp/go-msgpack v1.1.5
	github.com/hashicorp/go-msgpack v1.1.6
)
`;

const mavenProject = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>onex-runtime</groupId>
  <artifactId>test-services</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>${kafkaVersion}</version>
    </dependency>
  </dependencies>
</project>
`;

/** The first version that reads a `tool` line, and the first that fetches a newer one by itself. */
const [neededGo, switchingGo] = ["1.24.13", 21];

async function goCommand(folder: string, progress: Progress): Promise<string> {
  const { stdout } = await requireProgram(
    "go",
    ["version"],
    "Go, 1.24 or newer (https://go.dev, Debian: golang)",
  );
  const minor = Number(/go1\.(\d+)/.exec(stdout)?.[1]);
  if (minor >= switchingGo) return "go";
  // An older one can only fetch the toolchain's module, whose files come without their mode.
  const target = { x64: "amd64", arm64: "arm64" }[process.arch as string] ?? process.arch;
  const toolchain = `golang.org/toolchain@v0.0.1-go${neededGo}.${process.platform}-${target}`;
  progress(`${stdout.trim()} is too old: fetching ${toolchain}`);
  const env = { ...process.env, GOFLAGS: "" };
  const fetched = await run("go", ["mod", "download", "-json", toolchain], { cwd: folder, env });
  const { Dir } = JSON.parse(fetched.stdout) as { readonly Dir: string };
  const tools = `pkg/tool/${process.platform}_${target}`;
  await run("chmod", ["-R", "u+wx", join(Dir, "bin"), join(Dir, tools)]);
  return join(Dir, "bin/go");
}

async function requireProgram(
  program: string,
  args: readonly string[],
  remedy: string,
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  try {
    return await run(program, args);
  } catch (error) {
    throw new Error(`${program} does not run; install ${remedy}`, { cause: error });
  }
}

/** The path of a program in the cache; `build` makes it in a folder of its own and says where in there it is. */
async function cached(
  name: string,
  progress: Progress,
  build: (folder: string) => Promise<string>,
): Promise<string> {
  const cache = cacheFolder();
  const program = join(cache, name);
  if (await exists(program)) return program;
  await mkdir(cache, { recursive: true });
  const unlock = await lock(`${program}.lock`, progress);
  await removeOld(cache, `${name}.build-`);
  const folder = await mkdtemp(`${program}.build-`);
  try {
    // Another run may have built it while this one waited.
    if (!(await exists(program))) await rename(join(folder, await build(folder)), program);
    return program;
  } finally {
    await rm(folder, { recursive: true, force: true });
    await unlock();
  }
}

/** Folders of builds that were killed: old enough that nobody builds in them any more. */
async function removeOld(cache: string, prefix: string): Promise<void> {
  const hour = 3_600_000;
  for (const name of await readdir(cache)) {
    const path = join(cache, name);
    if (!name.startsWith(prefix) || Date.now() - (await stat(path)).mtimeMs < hour) continue;
    await rm(path, { recursive: true, force: true });
  }
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

const heartbeat = 10_000;

/** Takes the lock file, which holds its owner's process id; that of a dead one is taken over. */
async function lock(path: string, progress: Progress): Promise<() => Promise<void>> {
  for (let waited = 0; ; waited += 500) {
    try {
      const file = await open(path, "wx");
      await file.writeFile(String(process.pid));
      await file.close();
      return () => rm(path, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const owner = Number(await readFile(path, "utf8").catch(() => ""));
    if (owner > 0 && !isAlive(owner)) await rm(path, { force: true });
    else if (waited % heartbeat === 0)
      progress(`waiting for process ${owner}, which builds the same (${path})`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Runs a build; its last line is told every few seconds, with the time it has taken. */
async function command(
  program: string,
  args: readonly string[],
  options: { readonly folder: string; readonly env: NodeJS.ProcessEnv; readonly progress: Progress },
): Promise<void> {
  const { folder, env, progress } = options;
  const started = Date.now();
  const lines: string[] = [];
  const child = spawn(program, args, { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
  for (const output of [child.stdout, child.stderr]) {
    createInterface({ input: output }).on("line", (line) => {
      lines.push(line);
      if (lines.length > 30) lines.shift();
    });
  }
  const title = `${program} ${args[0] === "-B" ? "copy-dependencies" : (args[0] ?? "")}`;
  const tell = (): void =>
    progress(`${title}: ${Math.round((Date.now() - started) / 1000)} s, ${lines.at(-1) ?? "starting"}`);
  tell();
  const timer = setInterval(tell, heartbeat);
  // A run that is ended by exit() must not leave a compiler behind.
  const end = (): void => void child.kill();
  process.once("exit", end);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject).once("close", resolve);
    });
    if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}:\n${lines.join("\n")}`);
  } finally {
    clearInterval(timer);
    process.off("exit", end);
  }
}
