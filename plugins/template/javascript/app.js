// A plugin for Weir: one tool to begin with.

import { plugin, ToolError } from "./weir.js";

export const tools = plugin({
  greet: {
    description: "Greets a person by name.",
    input: { name: { type: "string", description: "Who is greeted." } },
    readOnly: true,
    run({ name }) {
      if (name === "") throw new ToolError("there is nobody to greet", { kind: "answer" });
      return `Hello, ${name}!`;
    },
  },
});
