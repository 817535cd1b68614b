"""Write a tool for Weir as a Python function.

    import weir
    from weir import Tools

    @weir.tool
    def greet(name: str) -> str:
        "Greets a person by name."
        return f"Hello, {name}!"

This stands in `app.py`, beside a copy of this file and a `plugin.toml`; `plugins/build-guest.sh` makes a component of it.
The function's name is the tool's name, its docstring the description, and the schema of the arguments comes from its
annotations: str, int, float, bool, list, dict, Literal, unions, and `Annotated[str, "what it is"]`. An argument with a
default may be left out. A parameter named `cx` gets the `Context` of the call. A text that is returned is the answer;
anything else is answered as JSON.

`raise ToolError(...)` says how the call failed. Any other exception fails the call for good, and its traceback goes to
the server's log. Without a component, `weir.call("greet", {"name": "Ada"})` calls a tool: tests need nothing else.
"""

import inspect
import json
import traceback
import types
import typing
from dataclasses import dataclass, field
from urllib.parse import urlsplit

try:
    from componentize_py_types import Err, Ok
    from wit_world.imports import outgoing_handler, streams, tool_config, tool_log, tool_progress
    from wit_world.imports import tool_types as wit
    from wit_world.imports import types as http
except ImportError:  # There is no host: this is a test.
    wit = None

WRITE_BYTES = 4096
READ_BYTES = 64 * 1024


class ToolError(Exception):
    """Why a tool has no good answer.

    `kind` is "permanent", "retryable" or "invalid-arguments": the call fails. With "answer" it succeeds, with an answer
    that says what went wrong. `code` is a stable name of the cause for machines; `retry_after` is in seconds.
    """

    def __init__(self, message, kind="permanent", code=None, retry_after=None):
        if kind not in ("permanent", "retryable", "invalid-arguments", "answer"):
            raise ValueError(f"no kind of failure: {kind}")
        super().__init__(message)
        self.kind, self.code, self.retry_after = kind, code, retry_after


class HttpError(ToolError):
    """There is no response. `code` is the host's name of the cause, such as `HttpRequestDenied`."""

    def __init__(self, code):
        passes = code.startswith(("Connection", "Dns", "Tls")) or code.endswith("Timeout") or code == "DestinationUnavailable"
        super().__init__("there is no response", "retryable" if passes else "permanent", code)


@dataclass
class Response:
    """What came back. Names of headers are in lower case."""

    status: int
    headers: dict = field(default_factory=dict)
    body: bytes = b""

    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


@dataclass
class Reply:
    """What came to a question: `action` is "accept", with the `content` of the form, "decline" or "cancel"."""

    action: str
    content: dict | None = None


class Asked(BaseException):
    """There is no answer yet: let it pass, and the run waits for one. It is no `Exception`, so that no tool takes it for
    a failure. Tests look at its `key`, `message` and `form` (JSON Schema).
    """

    def __init__(self, key, message, form):
        super().__init__(key)
        self.key, self.message, self.form = key, message, form


@dataclass
class Context:
    """One call: who calls, and the host behind it. In tests it keeps what the tool logged, in `lines`.

    `kept` is for what the call has to know after a question: JSON, 64 KiB with the answers. `answers` are those of
    earlier rounds, a `Reply` for each key; a test puts there what is to come.
    """

    run_id: str = "00000000-0000-7000-8000-000000000000"
    step: str = "step_0"
    attempt: int = 1
    idempotency_key: str = "00000000-0000-7000-8000-000000000000:step_0"
    deadline_ms: int | None = None
    settings: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)
    answers: dict = field(default_factory=dict)
    kept: dict = field(default_factory=dict)

    def log(self, message, level="info", **fields):
        """A line for the people who operate and debug. Levels: trace, debug, info, warn, error."""
        if wit is None:
            self.lines.append((level, message, fields))
        else:
            tool_log.write(tool_log.LogLevel[level.upper()], message, json.dumps(fields) if fields else None)

    def progress(self, done, total=None, message=None):
        """How far the call is. `done` must grow from report to report."""
        if wit is not None:
            tool_progress.report(done, total, message)

    def setting(self, name):
        """A setting that the operator made for this plugin, or None."""
        return self.settings.get(name) if wit is None else tool_config.setting(name)

    def secret(self, name):
        """What stands for a secret in a header or the query of a request, or None: the host puts the secret there."""
        return f"secret:{name}" if wit is None else tool_config.secret_placeholder(name)

    def ask(self, key, message, form):
        """Asks whoever answers for the run, and gives the `Reply`. Each question of a call has a key of its own.

        The call ends here, the run waits, for weeks and over restarts where it must, and the tool is called again from
        its beginning with the answer at hand: what stands before a question is done twice, so keep it cheap, or in
        `kept`. `form` has an annotation for each thing that is asked: str, int, float, bool, a `Literal` of texts or a
        list of one; with `| None` it may be left out.
        """
        if key not in self.answers:
            raise Asked(key, message, _form(form))
        return self.answers[key]


def fetch(url, method="GET", headers=None, body=None):
    """Sends a request, and waits for the whole `Response`. `body` is bytes or text. Raises `HttpError`."""
    body = body.encode() if isinstance(body, str) else body
    return _send(url, method.upper(), dict(headers or {}), body)


def _no_network(url, method, headers, body):
    raise HttpError("HttpRequestDenied")


def _wasi_send(url, method, headers, body):
    parts = urlsplit(url)
    request = http.OutgoingRequest(http.Fields.from_list([(name, str(text).encode()) for name, text in headers.items()]))
    known = getattr(http, f"Method_{method.capitalize()}", None)
    request.set_method(known() if known else http.Method_Other(method))
    request.set_scheme({"http": http.Scheme_Http, "https": http.Scheme_Https}[parts.scheme]())
    request.set_authority(parts.netloc)
    request.set_path_with_query((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    outgoing = request.body()
    try:
        future = outgoing_handler.handle(request, None)
        with outgoing.write() as stream:
            for at in range(0, len(body or b""), WRITE_BYTES):
                stream.blocking_write_and_flush(body[at : at + WRITE_BYTES])
        http.OutgoingBody.finish(outgoing, None)
        with future.subscribe() as ready:
            ready.block()
        response = future.get().value
        if isinstance(response, Err):
            raise response
        response = response.value
        names = {name.lower(): text.decode("utf-8", "replace") for name, text in response.headers().entries()}
        return Response(response.status(), names, _read(response.consume()))
    except Err as error:
        raise HttpError(type(error.value).__name__.removeprefix("ErrorCode_")) from None


def _read(incoming):
    chunks = []
    with incoming, incoming.stream() as stream:
        try:
            while True:
                chunks.append(stream.blocking_read(READ_BYTES))
        except Err as error:
            if not isinstance(error.value, streams.StreamError_Closed):
                raise
    return b"".join(chunks)


_send = _no_network if wit is None else _wasi_send


@dataclass
class _Tool:
    run: typing.Callable
    input_schema: dict
    output_schema: dict | None
    hints: dict


_TOOLS = {}
_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object", type(None): "null"}


def _schema(annotation):
    """JSON Schema of an annotation."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (inspect.Parameter.empty, typing.Any):
        return {}
    if annotation in _SIMPLE:
        return {"type": _SIMPLE[annotation]}
    if origin is list:
        return {"type": "array", "items": _schema(args[0])}
    if origin is dict and args[0] is str:
        return {"type": "object", "additionalProperties": _schema(args[1])}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(arg) for arg in args]}
    if origin is typing.Annotated and isinstance(args[1], str):
        return {**_schema(args[0]), "description": args[1]}
    raise TypeError(f"{annotation} has no JSON Schema")


def _form(members):
    """JSON Schema of a form: a flat object."""
    properties, required = {}, []
    for name, annotation in members.items():
        schema = _schema(annotation)
        told = {key: schema.pop(key) for key in ("description",) if key in schema}
        kinds = [kind for kind in schema.get("anyOf", [schema]) if kind != {"type": "null"}]
        if len(kinds) != 1:
            raise TypeError(f"{name} has several types, which no form has")
        if "anyOf" not in schema:
            required.append(name)
        for choice in (kinds[0], kinds[0].get("items", {})):
            if "enum" in choice:
                choice["type"] = "string"
        properties[name] = kinds[0] | told
    return {"type": "object", "properties": properties, "required": required}


def tool(function=None, **hints):
    """Makes a tool of a function. Hints: title, read_only, destructive, idempotent, open_world."""
    if function is None:
        return lambda function: tool(function, **hints)
    unknown = hints.keys() - {"title", "read_only", "destructive", "idempotent", "open_world"}
    if unknown or function.__name__ in _TOOLS:
        raise TypeError(f"{function.__name__} is there twice" if not unknown else f"no such hints: {unknown}")
    signature = inspect.signature(function, eval_str=True)
    parameters = {name: parameter for name, parameter in signature.parameters.items() if name != "cx"}
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    properties = {name: _schema(parameter.annotation) for name, parameter in parameters.items()}
    input_schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    returns = signature.return_annotation
    output_schema = None if returns in (str, inspect.Signature.empty) else _schema(returns)
    _TOOLS[function.__name__] = _Tool(function, input_schema, output_schema, hints)
    return function


def call(name, arguments, cx=None, send=None):
    """Calls a tool as the host would, and gives what it returned: for tests.

    `send(url, method, headers, body)` stands in for the network, and returns a `Response`.
    """
    global _send
    run = _TOOLS[name].run
    before, _send = _send, send or _send
    try:
        return run(**arguments, **({"cx": cx or Context()} if "cx" in inspect.signature(run).parameters else {}))
    finally:
        _send = before


class Tools:
    """What the host calls."""

    def list_tools(self):
        return [_info(name, tool) for name, tool in _TOOLS.items()]

    def call_tool(self, request):
        cx = Context(request.run_id, request.step, request.attempt, request.idempotency_key, request.deadline_ms)
        try:
            _resume(cx, request.resumed)
            if request.tool not in _TOOLS:
                raise Err(wit.Fault(wit.FaultKind.UNKNOWN_TOOL, f"there is no tool {request.tool}", None, None, None))
            return _done(call(request.tool, json.loads(request.arguments), cx))
        except Err:
            raise
        except Asked as asked:
            return _asks(cx, asked)
        except ToolError as error:
            if error.kind == "answer":
                return _done(str(error), is_error=True)
            after = None if error.retry_after is None else int(error.retry_after * 1000)
            kind = wit.FaultKind[error.kind.replace("-", "_").upper()]
            raise Err(wit.Fault(kind, str(error), error.code, after, None)) from None
        except BaseException as error:
            details = json.dumps({"traceback": traceback.format_exc()})
            said = "".join(traceback.format_exception_only(error)).strip()
            raise Err(wit.Fault(wit.FaultKind.PERMANENT, said, None, None, details)) from None


def _resume(cx, resumed):
    """Takes up what the call knew when it asked, and what came to that."""
    if resumed is None:
        return
    state = json.loads(resumed.state)
    cx.kept = state["kept"]
    cx.answers = {key: Reply(action, content) for key, (action, content) in state["answers"].items()}
    for answer in resumed.answers:
        content = None if answer.content is None else json.loads(answer.content)
        cx.answers[answer.key] = Reply(answer.action.name.lower(), content)


def _asks(cx, asked):
    answers = {key: (reply.action, reply.content) for key, reply in cx.answers.items()}
    state = json.dumps({"kept": cx.kept, "answers": answers}).encode()
    question = wit.Question(asked.key, asked.message, wit.QuestionBody_Form(json.dumps(asked.form)))
    return wit.Outcome_Ask(wit.Questions([question], state, None))


def _info(name, tool):
    hints = {key: tool.hints.get(key) for key in ("read_only", "destructive", "idempotent", "open_world")}
    return wit.ToolInfo(
        name=name,
        title=tool.hints.get("title"),
        description=inspect.getdoc(tool.run),
        input_schema=json.dumps(tool.input_schema),
        output_schema=None if tool.output_schema is None else json.dumps(tool.output_schema),
        hints=wit.ToolHints(title=None, **hints) if any(value is not None for value in hints.values()) else None,
        icons=[],
        meta=None,
    )


def _done(value, is_error=False):
    structured = None if isinstance(value, str) else json.dumps(value, allow_nan=False)
    text = wit.ContentBody_Text(value if structured is None else structured)
    content = [wit.Content(body=text, notes=None, meta=None)]
    return wit.Outcome_Done(wit.ToolResult(content=content, structured=structured, is_error=is_error, meta=None))
