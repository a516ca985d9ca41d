import { defineHandler } from "onex-runtime";

/** Answers `greeting.hello`. */
export const greeting = defineHandler({
  handlerType: "greeting",
  operations: {
    "greeting.hello": async ({ name }) => {
      if (typeof name !== "string" || name.trim() === "")
        throw new TypeError("payload.name must be a non-empty string");
      return { greeting: `Hello, ${name.trim()}!` };
    },
  },
});
