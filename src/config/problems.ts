/** Every problem of a configuration as one error: where each stands, what is wrong, and the value, secrets taken out. */
import { relative } from "node:path";
import { ProtocolConfigurationError } from "../core/errors.ts";
import type { Environment } from "../runtime/settings.ts";

export interface ConfigProblem {
  /** Absolute path of the file, or `environment variable NAME`. */
  readonly file: string;
  /** `handlers.mcp.port`; empty: the file as a whole. */
  readonly path: string;
  readonly line?: number;
  readonly column?: number;
  /** As JSON; absent where there is none. */
  readonly value?: string;
  readonly message: string;
  /** For an unknown key, the known key most like it. */
  readonly nearest?: string;
}

export interface KnownContext {
  readonly cwd: string;
  readonly contractsDir: string;
  readonly env: Environment;
}

export class ConfigurationProblems extends ProtocolConfigurationError {
  readonly problems: readonly ConfigProblem[];
  /** What is known all the same, so that contracts can be checked too. */
  readonly known: KnownContext;

  /** @param known files below its `cwd` are named relative to it */
  constructor(problems: readonly ConfigProblem[], known: KnownContext) {
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    const lines = problems.map((problem) => `  ${problemLine(problem, known.cwd)}`);
    super(`${count} in the configuration:\n${lines.join("\n")}`);
    this.problems = Object.freeze(problems);
    this.known = known;
  }
}

/** `contracts/runtime/runtime_config.yaml:12:5 handlers.mcp.port: Invalid … (value "x")` */
function problemLine(problem: ConfigProblem, cwd: string): string {
  const path = problem.file.startsWith(cwd) ? relative(cwd, problem.file) : problem.file;
  const position = problem.line === undefined ? "" : `:${problem.line}:${problem.column ?? 1}`;
  const key = problem.path === "" ? "" : ` ${problem.path}`;
  const shown = problem.value !== undefined && !problem.message.includes(problem.value);
  return `${path}${position}${key}: ${problem.message}${shown ? ` (value ${problem.value})` : ""}`;
}
