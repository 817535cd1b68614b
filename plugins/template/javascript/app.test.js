// Tests without WebAssembly: `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { tools } from "./app.js";
import { ToolError } from "./weir.js";

test("greets by name", async () => {
  assert.equal(await tools.call("greet", { name: "Ada" }), "Hello, Ada!");
});

test("nobody is an answer", async () => {
  const called = tools.call("greet", { name: "" });
  await assert.rejects(called, (error) => error instanceof ToolError && error.kind === "answer");
});
