// Tests without WebAssembly: `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { tools } from "./app.js";
import { Context, ToolError } from "./weir.js";

const page = (status, document) => async () => new Response(JSON.stringify(document), { status });

test("greets by name", async () => {
  const cx = new Context();
  assert.equal(await tools.call("greet", { name: "Ada" }, cx), "Hello, Ada!");
  assert.deepEqual(cx.lines, [{ level: "info", message: "greeting", fields: { name: "Ada" } }]);
});

test("gives a member", async (t) => {
  const asked = t.mock.method(globalThis, "fetch", page(200, { stars: 7 }));
  assert.deepEqual(await tools.call("fetch_json", { url: "https://example.com/", member: "stars" }), { value: 7 });
  assert.deepEqual(await tools.call("fetch_json", { url: "https://example.com/", member: "forks" }), { value: null });
  assert.equal(asked.mock.calls[0].arguments[0], "https://example.com/");
});

test("a document that is not there is an answer", async (t) => {
  t.mock.method(globalThis, "fetch", page(404, {}));
  const called = tools.call("fetch_json", { url: "https://example.com/", member: "stars" });
  await assert.rejects(called, (error) => error instanceof ToolError && error.kind === "answer");
});
