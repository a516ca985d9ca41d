/**
 * The command line: its commands, their options and help, and the exit codes. Does not own what a command does.
 *
 * A command's module is imported when it runs: help and a short command do not wait for what serve needs.
 *
 * Exit codes: 0 done, 1 failed, 2 the command line itself is wrong. Logs and messages go to stderr, results to stdout.
 */
import { Command, CommanderError } from "commander";
import { processEnv } from "../config/load.ts";
import { messageOf } from "../core/errors.ts";
import { version } from "../core/version.ts";
import { endProcess, refuseExit } from "./failures.ts";
import type { PlanOptions } from "./plan.ts";
import type { RegisterCommand } from "./register.ts";
import type { ToolsOptions } from "./tools.ts";
import { UsageError } from "./usage.ts";

/** Columns of the help texts, whatever the terminal's width. */
const helpWidth = 100;

/** Runs one command; resolves with the exit code. Never rejects. */
export async function main(args: readonly string[]): Promise<number> {
  endWithReader();
  using _exit = refuseExit();
  let code = 0;
  const program = commands((result) => {
    code = result;
  });
  try {
    await program.parseAsync(withCommand(args), { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    process.stderr.write(`${errorText(error)}\n`);
    return error instanceof UsageError ? 2 : 1;
  }
}

/** `onex tools | head -1`: once nobody reads, there is nothing left to do and nothing wrong. */
function endWithReader(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") endProcess(0);
    process.stderr.write(`onex: stdout cannot be written: ${error.message}\n`);
    endProcess(1);
  });
  // Nobody reads the messages: that is no reason to stop.
  process.stderr.on("error", () => undefined);
}

/** `onex` and `onex --config FILE` are `onex serve …`. */
function withCommand(args: readonly string[]): string[] {
  const [first] = args;
  const isProgram = first !== undefined && ["-h", "--help", "-V", "--version"].includes(first);
  return first === undefined || (first.startsWith("-") && !isProgram) ? ["serve", ...args] : [...args];
}

/** One message; the stack as well where the level is debug. */
function errorText(error: unknown): string {
  const { ONEX_LOG_LEVEL: level } = processEnv();
  if (level === "debug" && error instanceof Error && error.stack !== undefined) return error.stack;
  return `onex: ${messageOf(error)}`;
}

function commands(done: (code: number) => void): Command {
  const program = new Command("onex")
    .description("A handler runtime with an embedded MCP server. Without a command: serve.")
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "show this help")
    .helpCommand(false)
    .exitOverride()
    .showHelpAfterError("(onex --help shows what there is)")
    .configureOutput({ getOutHelpWidth: () => helpWidth, getErrHelpWidth: () => helpWidth });

  const command = (usage: string, description: string): Command =>
    program.command(usage).description(description).helpOption("-h, --help", "show this help");
  const configured = (usage: string, description: string): Command =>
    command(usage, description).option(
      "-c, --config <file>",
      "configuration (default: ONEX_CONFIG, else runtime/runtime_config.yaml in ONEX_CONTRACTS_DIR or ./contracts)",
    );

  configured("serve", "run the handlers and the MCP server until SIGTERM or SIGINT").action(
    async (options: ConfigOption) => done(await (await import("./serve.ts")).serve(options.config)),
  );
  configured("stdio", "serve the tools to one MCP client over stdin and stdout, opening no port").action(
    async (options: ConfigOption) => done(await (await import("./stdio.ts")).stdio(options.config)),
  );
  configured("check", "check the configuration and every contract; report all problems at once").action(
    async (options: ConfigOption) => done(await (await import("./check.ts")).check(options.config)),
  );
  configured("tools", "list the tools that would be served, or say why one is or is not")
    .option("--json", "as tools/list gives them")
    .option(
      "--explain <name>",
      "which records speak of this name, and what became of each; exit code 1: not served",
    )
    .option("--url <url>", "ask the server that runs there about the name, such as http://127.0.0.1:8090")
    .option("--api-key <key>", "key of an admin of that server (default: ONEX_API_KEY)")
    .action(async (options: ToolsOptions) => done(await (await import("./tools.ts")).tools(options)));
  configured("plan", "show what a configuration would change in the tools of a running server")
    .option("--url <url>", "of the running server (default: where the configuration says that it listens)")
    .option("--api-key <key>", "key for that server (default: ONEX_API_KEY)")
    .option("--json", "as JSON")
    .action(async (options: PlanOptions) => done(await (await import("./plan.ts")).plan(options)));
  configured("call", "call a tool in this process, opening no port")
    .argument("<tool>", "its name")
    .argument("[arguments...]", "key=value; a value is read as the type the tool's schema gives the key")
    .option("--args <json>", "arguments as a JSON object; key=value is laid over it")
    .option("--json", "print the whole result, with content and isError")
    .action(
      async (tool: string, pairs: string[], options: ConfigOption & { args?: string; json?: boolean }) =>
        done(await (await import("./call.ts")).call({ tool, pairs, ...options })),
    );
  command("send", "send an envelope to a running host and print the answer")
    .argument("<operation>", "such as mcp.list_tools: a handler's type, a dot, what it is to do")
    .option("--payload <json>", "a JSON object", "{}")
    .option(
      "--url <url>",
      "where the host's operator endpoints are (default: http://127.0.0.1 with ONEX_HTTP_PORT, else 8085)",
    )
    .option("--api-key <key>", "key of an admin (default: ONEX_API_KEY)")
    .action(async (operation: string, options: { payload: string; url?: string; apiKey?: string }) =>
      done(await (await import("./send.ts")).send({ operation, ...options })),
    );
  const registering = (usage: string, description: string): Command =>
    configured(usage, description)
      .option("--tool <name...>", "only these tools (default: all that are services with an address)")
      .option("--no-self", "not the runtime itself")
      .option("--address <host>", "where others reach this runtime (default: register.address, else host)")
      .option("--port <port>", "the port that they call (default: register.port, else port)")
      .option("--dry-run", "print what would be done, and contact nobody")
      .option("--json", "as JSON");
  registering("register", "register this runtime and the services of its contracts in Consul, and on Kafka")
    .option("--id <id>", "of the runtime's service (default: register.id, else name, address and port)")
    .option("--check <kind>", "http, tcp, ttl or none (default: register.check)")
    .action(async (options: RegisterCommand) =>
      done(await (await import("./register.ts")).register(options)),
    );
  registering("deregister", "take out of Consul and Kafka what register put there")
    .option("--id <id>", "one service, whoever registered it")
    .action(async (options: RegisterCommand) =>
      done(await (await import("./register.ts")).deregister(options)),
    );
  command("init", "write a working tool to start from; files that exist are never changed")
    .argument("[name]", "of the tool or the handler", "hello")
    .option("--handler", "a handler instead of a tool")
    .action(async (name: string, options: { handler?: boolean }) =>
      done(await (await import("./init.ts")).init(name, options.handler === true)),
    );
  return program;
}

interface ConfigOption {
  readonly config?: string;
}
