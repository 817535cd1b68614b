// Write a tool for Weir as a JavaScript function.
//
//     import { plugin } from "./weir.js";
//
//     export const tools = plugin({
//       greet: {
//         description: "Greets a person by name.",
//         input: { name: { type: "string" } },
//         run: ({ name }) => `Hello, ${name}!`,
//       },
//     });
//
// This stands in `app.js`, beside a copy of this file and a `plugin.toml`; `plugins/build-guest.sh` makes a component of
// it. `input` has a JSON Schema for each argument, with `optional: true` for one that may be left out; `output` is the
// schema of the result; `title` and the hints `readOnly`, `destructive`, `idempotent`, `openWorld` say more. `run` gets
// the arguments and the `Context` of the call, and may be async. A text that it returns is the answer; anything else is
// answered as JSON. The network is `fetch`.
//
// `throw new ToolError(...)` says how the call failed. Any other error fails the call for good, and its stack goes to
// the server's log. Without a component, `await tools.call("greet", { name: "Ada" })` calls a tool: tests need nothing else.

const KINDS = ["permanent", "retryable", "invalid-arguments", "answer"];
const HINTS = ["readOnly", "destructive", "idempotent", "openWorld"];
const MEMBERS = ["title", "description", "input", "output", "run", ...HINTS];

/**
 * Why a tool has no good answer. With the kind "permanent", "retryable" or "invalid-arguments" the call fails; with
 * "answer" it succeeds, with an answer that says what went wrong. `code` is a stable name of the cause for machines;
 * `retryAfter` is in seconds.
 */
export class ToolError extends Error {
  constructor(message, { kind = "permanent", code, retryAfter } = {}) {
    if (!KINDS.includes(kind)) throw new RangeError(`no kind of failure: ${kind}`);
    super(message);
    this.name = "ToolError";
    Object.assign(this, { kind, code, retryAfter });
  }
}

/**
 * There is no answer yet: let it pass, and the run waits for one. A tool that catches errors around a question has to
 * throw this one again. Tests look at its `key`, `question` and `form` (JSON Schema).
 */
export class Asked extends Error {
  constructor(key, question, form) {
    super(`${key} is asked`);
    Object.assign(this, { key, question, form });
  }
}

// The host behind a component, which its first module sets; none in tests.
let host;

export function connect(imports) {
  host = imports;
}

/**
 * One call: who calls, and the host behind it. In tests it keeps what the tool logged, in `lines`.
 *
 * `kept` is for what the call has to know after a question: JSON, 64 KiB with the answers. `answers` are those of earlier
 * rounds, `{ action, content }` for each key; a test puts there what is to come.
 */
export class Context {
  constructor(call = {}) {
    this.runId = call.runId ?? "00000000-0000-7000-8000-000000000000";
    this.step = call.step ?? "step_0";
    this.attempt = call.attempt ?? 1;
    this.idempotencyKey = call.idempotencyKey ?? `${this.runId}:${this.step}`;
    this.deadlineMs = call.deadlineMs === undefined ? undefined : Number(call.deadlineMs);
    this.settings = call.settings ?? {};
    this.lines = [];
    this.answers = call.answers ?? {};
    this.kept = call.kept ?? {};
  }

  /** A line for the people who operate and debug. Levels: trace, debug, info, warn, error. */
  log(message, fields, level = "info") {
    if (host) host.write(level, message, fields && JSON.stringify(fields));
    else this.lines.push({ level, message, fields });
  }

  /** How far the call is. `done` must grow from report to report. */
  progress(done, total, message) {
    host?.report(done, total, message);
  }

  /** A setting that the operator made for this plugin, or undefined. */
  setting(name) {
    return host ? host.setting(name) : this.settings[name];
  }

  /** What stands for a secret in a header or the query of a request, or undefined: the host puts the secret there. */
  secret(name) {
    return host ? host.secretPlaceholder(name) : `secret:${name}`;
  }

  /**
   * Asks whoever answers for the run, and gives `{ action, content }`: the action is "accept", with the content of the
   * form, "decline" or "cancel". Each question of a call has a key of its own.
   *
   * The call ends here, the run waits, for weeks and over restarts where it must, and the tool is called again from its
   * beginning with the answer at hand: what stands before a question is done twice, so keep it cheap, or in `kept`. `form`
   * has a JSON Schema for each thing that is asked, with `optional: true` for one that may be left out: texts, numbers,
   * booleans, choices (`enum`) and lists of them.
   */
  ask(key, question, form) {
    if (!Object.hasOwn(this.answers, key)) throw new Asked(key, question, object(form));
    return this.answers[key];
  }
}

/** Makes what the host calls of a table of tools. */
export function plugin(table) {
  for (const [name, tool] of Object.entries(table)) {
    const unknown = Object.keys(tool).filter((member) => !MEMBERS.includes(member));
    if (unknown.length > 0) throw new TypeError(`${name} has unknown members: ${unknown.join(", ")}`);
    if (typeof tool.run !== "function") throw new TypeError(`${name} has no function \`run\``);
  }
  const call = async (name, input, cx = new Context()) => table[name].run(input, cx);
  return {
    call,
    listTools: () => Object.entries(table).map(([name, tool]) => info(name, tool)),
    async callTool(request) {
      if (!Object.hasOwn(table, request.tool)) {
        throw { kind: "unknown-tool", message: `there is no tool ${request.tool}` };
      }
      const cx = new Context(request);
      try {
        Object.assign(cx, resume(request.resumed));
        return done(await call(request.tool, JSON.parse(request.arguments), cx), false);
      } catch (error) {
        if (error instanceof Asked) return asks(cx, error);
        if (error instanceof ToolError && error.kind === "answer") return done(error.message, true);
        throw fault(error);
      }
    },
  };
}

// What the call knew when it asked, and what came to that.
function resume(resumed) {
  if (!resumed) return {};
  const { kept, answers } = JSON.parse(new TextDecoder().decode(resumed.state));
  for (const { key, action, content } of resumed.answers) {
    answers[key] = { action, content: content === undefined ? undefined : JSON.parse(content) };
  }
  return { kept, answers };
}

function asks({ kept, answers }, { key, question, form }) {
  const asked = [{ key, message: question, body: { tag: "form", val: JSON.stringify(form) } }];
  return { tag: "ask", val: { asked, state: new TextEncoder().encode(JSON.stringify({ kept, answers })) } };
}

// JSON Schema of an object with these members.
function object(members) {
  const properties = {};
  const required = [];
  for (const [name, { optional, ...schema }] of Object.entries(members)) {
    properties[name] = schema;
    if (!optional) required.push(name);
  }
  return { type: "object", properties, required };
}

function info(name, tool) {
  const hinted = HINTS.some((hint) => tool[hint] !== undefined);
  return {
    name,
    title: tool.title,
    description: tool.description,
    inputSchema: JSON.stringify({ ...object(tool.input ?? {}), additionalProperties: false }),
    outputSchema: tool.output && JSON.stringify(tool.output),
    hints: hinted ? Object.fromEntries(HINTS.map((hint) => [hint, tool[hint]])) : undefined,
    icons: [],
  };
}

function done(value, isError) {
  const structured = typeof value === "string" ? undefined : (JSON.stringify(value) ?? "null");
  const content = [{ body: { tag: "text", val: structured ?? value } }];
  return { tag: "done", val: { content, structured, isError } };
}

function fault(error) {
  if (error instanceof ToolError) {
    const retryAfterMs = error.retryAfter === undefined ? undefined : BigInt(Math.round(error.retryAfter * 1000));
    return { kind: error.kind, message: error.message, code: error.code, retryAfterMs };
  }
  const details = error?.stack ? JSON.stringify({ stack: error.stack }) : undefined;
  return { kind: "permanent", message: String(error), details };
}
