// A plugin in JavaScript, to copy from.

import { plugin, ToolError } from "./weir.js";

export const tools = plugin({
  greet: {
    description: "Greets a person by name.",
    input: { name: { type: "string", description: "Who is greeted." } },
    readOnly: true,
    run({ name }, cx) {
      cx.log("greeting", { name });
      return `Hello, ${name}!`;
    },
  },

  fetch_json: {
    title: "Member of a document",
    description: "Fetches a JSON document and gives one of its members.",
    input: { url: { type: "string" }, member: { type: "string" } },
    readOnly: true,
    openWorld: true,
    async run({ url, member }) {
      const response = await fetch(url, { headers: { accept: "application/json" } });
      if (!response.ok) throw new ToolError(`${url} answered ${response.status}`, { kind: "answer" });
      const document = await response.json();
      return { value: document[member] ?? null };
    },
  },

  greet_visitor: {
    description: "Asks who is there, and greets them.",
    run(_, cx) {
      const form = { name: { type: "string", description: "Your name." }, title: { type: "string", optional: true } };
      const { action, content } = cx.ask("name", "Who is there?", form);
      if (action !== "accept") return "Hello, whoever you are!";
      return `Hello, ${[content.title, content.name].filter(Boolean).join(" ")}!`;
    },
  },

  fail: {
    description: "Fails: with an exception, or in the way that `kind` says.",
    input: { message: { type: "string" }, kind: { type: "string", optional: true } },
    run({ message, kind }) {
      if (kind === undefined) throw new TypeError(message);
      throw new ToolError(message, { kind, code: "as-told", retryAfter: 2 });
    },
  },

  draw: {
    description: "Numbers that nobody can foresee.",
    run: () => [Math.random(), crypto.getRandomValues(new Uint32Array(1))[0], Date.now()],
  },
});
