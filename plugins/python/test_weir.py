"""What a tool's signature says: `python3 -m unittest`."""

import unittest
from typing import Annotated, Any, Literal

import weir


class Signatures(unittest.TestCase):
    def setUp(self):
        weir._TOOLS.clear()

    def test_a_schema_comes_from_the_annotations(self):
        @weir.tool
        def all_of_them(
            text: Annotated[str, "some text"],
            count: int,
            share: float,
            names: list[str],
            sizes: dict[str, int],
            anything: Any,
            untyped,
            way: Literal["up", "down"] = "up",
            limit: int | None = None,
            cx: weir.Context = None,
        ) -> list[int]:
            return []

        schema = weir._TOOLS["all_of_them"].input_schema
        self.assertEqual(
            schema["properties"],
            {
                "text": {"type": "string", "description": "some text"},
                "count": {"type": "integer"},
                "share": {"type": "number"},
                "names": {"type": "array", "items": {"type": "string"}},
                "sizes": {"type": "object", "additionalProperties": {"type": "integer"}},
                "anything": {},
                "untyped": {},
                "way": {"enum": ["up", "down"]},
                "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            },
        )
        self.assertEqual(schema["required"], ["text", "count", "share", "names", "sizes", "anything", "untyped"])
        self.assertIs(schema["additionalProperties"], False)
        output = {"type": "array", "items": {"type": "integer"}}
        self.assertEqual(weir._TOOLS["all_of_them"].output_schema, output)

    def test_a_text_has_no_schema(self):
        @weir.tool
        def speak() -> str:
            return "a"

        self.assertIsNone(weir._TOOLS["speak"].output_schema)
        self.assertEqual(weir.call("speak", {}), "a")

    def test_what_cannot_be_a_tool_is_refused_when_it_is_written(self):
        with self.assertRaisesRegex(TypeError, "has no JSON Schema"):
            weir.tool(_takes_bytes)
        with self.assertRaisesRegex(TypeError, "no such hints"):
            weir.tool(_takes_nothing, readonly=True)
        weir.tool(_takes_nothing)
        with self.assertRaisesRegex(TypeError, "is there twice"):
            weir.tool(_takes_nothing)
        with self.assertRaisesRegex(ValueError, "no kind of failure"):
            weir.ToolError("a", "often")

    def test_a_form_is_flat(self):
        members = {
            "sure": bool,
            "why": Annotated[str, "A reason."],
            "way": Literal["up", "down"],
            "ways": list[Literal["up", "down"]],
            "count": int | None,
        }
        choice = {"enum": ["up", "down"], "type": "string"}
        expected = {
            "sure": {"type": "boolean"},
            "why": {"type": "string", "description": "A reason."},
            "way": choice,
            "ways": {"type": "array", "items": choice},
            "count": {"type": "integer"},
        }
        form = weir._form(members)
        self.assertEqual((form["properties"], form["required"]), (expected, ["sure", "why", "way", "ways"]))
        with self.assertRaisesRegex(TypeError, "several types"):
            weir._form({"what": int | str})

    def test_what_may_pass_may_be_tried_again(self):
        kinds = {code: weir.HttpError(code).kind for code in ("ConnectionRefused", "DnsError", "DnsTimeout", "HttpRequestDenied")}
        expected = {"ConnectionRefused": "retryable", "DnsError": "retryable", "DnsTimeout": "retryable", "HttpRequestDenied": "permanent"}
        self.assertEqual(kinds, expected)


def _takes_bytes(data: bytes) -> str:
    return ""


def _takes_nothing() -> str:
    return ""


if __name__ == "__main__":
    unittest.main()
