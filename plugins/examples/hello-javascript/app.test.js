// Tests without WebAssembly: `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { tools } from "./app.js";
import { Asked, Context, ToolError } from "./weir.js";

const page = (status, document) => async () => new Response(JSON.stringify(document), { status });

test("greets by name", async () => {
  const cx = new Context();
  assert.equal(await tools.call("greet", { name: "Ada" }, cx), "Hello, Ada!");
  assert.deepEqual(cx.lines, [{ level: "info", message: "greeting", fields: { name: "Ada" } }]);
});

test("asks who is there", async () => {
  const asks = (error) => error instanceof Asked && error.question === "Who is there?" && error.form.required.length === 1;
  await assert.rejects(tools.call("greet_visitor", {}), asks);
  const answered = (reply) => tools.call("greet_visitor", {}, new Context({ answers: { name: reply } }));
  const lady = { action: "accept", content: { name: "Lovelace", title: "Lady" } };
  assert.equal(await answered(lady), "Hello, Lady Lovelace!");
  assert.equal(await answered({ action: "decline" }), "Hello, whoever you are!");
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
