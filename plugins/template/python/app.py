"""A plugin for Weir: one tool to begin with."""

from typing import Annotated

import weir
from weir import ToolError, Tools  # noqa: F401  the host calls `Tools`


@weir.tool(read_only=True)
def greet(name: Annotated[str, "Who is greeted."]) -> str:
    """Greets a person by name."""
    if not name:
        raise ToolError("there is nobody to greet", "answer")
    return f"Hello, {name}!"
