/** What `onex init` writes. The modules are the user's own source, which Node runs as it is. Pure. */
import { stringify } from "yaml";

export interface Template {
  /** Text by file name. */
  readonly files: Readonly<Record<string, string>>;
  /** Command lines to try next, without the program's name. */
  readonly next: readonly string[];
}

export function toolTemplate(name: string): Template {
  return {
    files: { "contract.yaml": toolContract(name), [`${name}.ts`]: toolModule },
    next: [`call ${name} name=Ada`, "serve"],
  };
}

/** The name as YAML reads it back: in quotes where it is one of YAML's own words, such as `true`. */
const scalar = (name: string): string => stringify(name).trim();

const toolContract = (name: string): string => `# yaml-language-server: $schema=../node_contract.schema.json
# A tool: what clients see of it, and which function runs. Saving this file or the module takes effect at once.
name: ${scalar(name)}
node_type: ORCHESTRATOR
node_version: 1.0.0
description: Greets someone.
mcp:
  expose: true
  tool_name: ${scalar(name)}
  title: Greeting
  # A model chooses by this text: say what the tool does and when to use it.
  description: Greets someone by name, once or several times.
  annotations: { read_only: true, idempotent: true, open_world: false }
  input_schema:
    type: object
    properties:
      name: { type: string, minLength: 1, description: Who is greeted. }
      times: { type: integer, minimum: 1, maximum: 10, default: 1, description: How often. }
    required: [name]
    additionalProperties: false
  output_schema:
    type: object
    properties:
      greetings: { type: array, items: { type: string } }
    required: [greetings]
  execution: { kind: local, module: ./${name}.ts }
`;

const toolModule = `import type { ToolContext } from "onex-runtime";

interface Input {
  name: string;
  times?: number;
}

/** Arguments are checked against input_schema before this runs, and what it returns against output_schema. */
export default function greet({ name, times = 1 }: Input, { progress, signal }: ToolContext) {
  const greetings: string[] = [];
  for (let done = 1; done <= times; done++) {
    // Aborts when the client cancels or the time is over.
    signal.throwIfAborted();
    greetings.push(\`Hello, \${name}!\`);
    progress(done, times);
  }
  return { greetings };
}
`;

export function handlerTemplate(name: string): Template {
  return {
    files: { "handler_contract.yaml": handlerContract(name), [`${name}.ts`]: handlerModule(name) },
    next: ["serve", `send ${name}.greet --payload '{"name": "Ada"}'   # while it runs, in another terminal`],
  };
}

const handlerContract = (
  name: string,
): string => `# yaml-language-server: $schema=../handler_contract.schema.json
# A handler: the runtime hands it every envelope whose operation begins with "${name}.".
# Its own configuration is the section handlers.${name} in runtime/runtime_config.yaml.
name: handler-${name}
handler_class: ./${name}.ts#handler
handler_type: compute
protocol_type: ${scalar(name)}
handler_version: { major: 1, minor: 0, patch: 0 }
`;

const handlerModule = (name: string): string => `import { defineHandler } from "onex-runtime";

export const handler = defineHandler({
  handlerType: "${name}",
  operations: {
    // What is returned becomes the answer's payload, what is thrown an error answer.
    "${name}.greet": ({ name }, { log }) => {
      log.info({ name }, "greeting");
      return { greeting: \`Hello, \${String(name)}!\` };
    },
  },
});
`;
