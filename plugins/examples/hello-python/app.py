"""A plugin in Python, to copy from."""

import re
from typing import Annotated

import weir
from weir import ToolError, Tools  # noqa: F401  the host calls `Tools`


@weir.tool(read_only=True)
def greet(name: Annotated[str, "Who is greeted."], cx: weir.Context) -> str:
    """Greets a person by name."""
    cx.log("greeting", name=name)
    return f"Hello, {name}!"


@weir.tool(title="Title of a page", read_only=True, open_world=True)
def fetch_title(url: str) -> dict:
    """Fetches a page and gives its title."""
    response = weir.fetch(url, headers={"accept": "text/html"})
    if response.status != 200:
        raise ToolError(f"{url} answered {response.status}", "answer")
    title = re.search(r"<title[^>]*>(.*?)</title>", response.text(), re.IGNORECASE | re.DOTALL)
    return {"status": response.status, "title": title.group(1).strip() if title else None}


@weir.tool
def greet_visitor(cx: weir.Context) -> str:
    """Asks who is there, and greets them."""
    reply = cx.ask("name", "Who is there?", {"name": Annotated[str, "Your name."], "title": str | None})
    if reply.action != "accept":
        return "Hello, whoever you are!"
    return "Hello, {}!".format(" ".join(filter(None, [reply.content.get("title"), reply.content["name"]])))


@weir.tool
def fail(message: str, kind: str | None = None) -> str:
    """Fails: with an exception, or in the way that `kind` says."""
    if kind is None:
        raise ValueError(message)
    raise ToolError(message, kind, code="as-told", retry_after=2)
