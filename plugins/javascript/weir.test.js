// What a table of tools says to the host, and how errors become faults: `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { plugin, ToolError } from "./weir.js";

const call = (tool, input = {}) => ({ tool, arguments: JSON.stringify(input), runId: "run", step: "step", attempt: 2 });

test("a tool says what it takes and what it is", () => {
  const [tool] = plugin({
    add: {
      title: "Add",
      description: "Adds.",
      input: { a: { type: "number" }, b: { type: "number", optional: true } },
      output: { type: "number" },
      readOnly: true,
      run: ({ a, b }) => a + (b ?? 0),
    },
  }).listTools();
  const { inputSchema, outputSchema, hints, ...rest } = tool;
  assert.deepEqual(rest, { name: "add", title: "Add", description: "Adds.", icons: [] });
  assert.deepEqual(JSON.parse(inputSchema), {
    type: "object",
    properties: { a: { type: "number" }, b: { type: "number" } },
    required: ["a"],
    additionalProperties: false,
  });
  assert.deepEqual(JSON.parse(outputSchema), { type: "number" });
  assert.deepEqual(hints, { readOnly: true, destructive: undefined, idempotent: undefined, openWorld: undefined });
});

test("a text is text, and anything else is JSON", async () => {
  const values = { text: "a", object: { a: 1 }, nothing: undefined };
  const tools = plugin(Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { run: () => value }])));
  const answer = async (name) => {
    const { content, structured, isError } = (await tools.callTool(call(name))).val;
    return [content[0].body.val, structured, isError];
  };
  assert.deepEqual(await answer("text"), ["a", undefined, false]);
  assert.deepEqual(await answer("object"), ['{"a":1}', '{"a":1}', false]);
  assert.deepEqual(await answer("nothing"), ["null", "null", false]);
});

test("errors say how the call failed", async () => {
  const tools = plugin({
    retry: { run: () => { throw new ToolError("busy", { kind: "retryable", code: "busy", retryAfter: 1.5 }); } },
    answer: { run: () => { throw new ToolError("no such thing", { kind: "answer" }); } },
    broken: { run: async () => { throw new TypeError("oops"); } },
  });
  const fault = (name) => tools.callTool(call(name)).then(() => assert.fail("an answer"), (fault) => fault);
  assert.deepEqual(await fault("retry"), { kind: "retryable", message: "busy", code: "busy", retryAfterMs: 1500n });
  const { details, ...rest } = await fault("broken");
  assert.deepEqual(rest, { kind: "permanent", message: "TypeError: oops" });
  assert.match(JSON.parse(details).stack, /weir\.test\.js/);
  assert.equal((await fault("nobody")).kind, "unknown-tool");
  assert.equal((await fault("toString")).kind, "unknown-tool");
  assert.equal((await tools.callTool(call("answer"))).val.isError, true);
});

test("what cannot be a tool is refused when it is written", () => {
  assert.throws(() => plugin({ a: { run: 1 } }), /no function/);
  assert.throws(() => plugin({ a: { run() {}, readonly: true } }), /unknown members: readonly/);
  assert.throws(() => new ToolError("a", { kind: "often" }), /no kind of failure/);
});
