"""Tests without WebAssembly: `python3 -m unittest`."""

import unittest

import app  # noqa: F401  registers the tools
import weir


class Greet(unittest.TestCase):
    def test_greets_by_name(self):
        self.assertEqual(weir.call("greet", {"name": "Ada"}), "Hello, Ada!")

    def test_nobody_is_an_answer(self):
        with self.assertRaises(weir.ToolError) as raised:
            weir.call("greet", {"name": ""})
        self.assertEqual((raised.exception.kind, str(raised.exception)), ("answer", "there is nobody to greet"))


if __name__ == "__main__":
    unittest.main()
