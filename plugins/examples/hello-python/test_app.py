"""Tests without WebAssembly: `python3 -m unittest`."""

import unittest

import app  # noqa: F401  registers the tools
import weir


class Hello(unittest.TestCase):
    def test_greets_by_name(self):
        cx = weir.Context()
        self.assertEqual(weir.call("greet", {"name": "Ada"}, cx), "Hello, Ada!")
        self.assertEqual(cx.lines, [("info", "greeting", {"name": "Ada"})])

    def test_asks_who_is_there(self):
        with self.assertRaises(weir.Asked) as asked:
            weir.call("greet_visitor", {})
        self.assertEqual((asked.exception.message, asked.exception.form["required"]), ("Who is there?", ["name"]))
        cx = weir.Context(answers={"name": weir.Reply("accept", {"name": "Lovelace", "title": "Lady"})})
        self.assertEqual(weir.call("greet_visitor", {}, cx), "Hello, Lady Lovelace!")
        cx = weir.Context(answers={"name": weir.Reply("decline")})
        self.assertEqual(weir.call("greet_visitor", {}, cx), "Hello, whoever you are!")

    def test_finds_the_title(self):
        asked = []

        def send(url, method, headers, body):
            asked.append((method, url, headers, body))
            return weir.Response(200, {}, b"<html><TITLE>\n A page </TITLE>")

        title = weir.call("fetch_title", {"url": "https://example.com/"}, send=send)
        self.assertEqual(title, {"status": 200, "title": "A page"})
        self.assertEqual(asked, [("GET", "https://example.com/", {"accept": "text/html"}, None)])

    def test_a_page_that_is_not_there_is_an_answer(self):
        with self.assertRaises(weir.ToolError) as raised:
            weir.call("fetch_title", {"url": "https://example.com/"}, send=lambda *_: weir.Response(404))
        self.assertEqual((raised.exception.kind, str(raised.exception)), ("answer", "https://example.com/ answered 404"))

    def test_without_a_grant_there_is_no_network(self):
        with self.assertRaises(weir.HttpError) as raised:
            weir.call("fetch_title", {"url": "https://example.com/"})
        self.assertEqual((raised.exception.kind, raised.exception.code), ("permanent", "HttpRequestDenied"))


if __name__ == "__main__":
    unittest.main()
