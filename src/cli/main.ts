/** The command line. */
import { messageOf } from "../core/errors.ts";
import { serve } from "./serve.ts";

/** Runs one command; resolves with the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const [command = "serve"] = args;
  try {
    if (command === "serve") return await serve(undefined);
    console.error(`unknown command ${command}`);
    return 2;
  } catch (error) {
    console.error(messageOf(error));
    return 1;
  }
}
