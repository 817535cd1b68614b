//! Renders a text, such as a mail or a report, from a template and values. Templates are written as for Jinja.
//!
//! A template sees its values and nothing else: there are no files to include, and a value that is missing is an error
//! rather than an empty text. Rendering is bounded in steps and in output, so that a template without an end is told
//! so, and is not stopped by the sandbox.

use std::io;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior};
use weir_sdk::prelude::*;
use weir_sdk::serde_json::Map;

/// Instructions of a template that are executed.
const STEPS_MAX: u64 = 1_000_000;

/// Bytes that a template may give.
const OUTPUT_MAX_BYTES: usize = 512 * 1024;

/// What to render.
#[weir_sdk::input]
struct Render {
    /// The template, such as `Hello, {{ name }}!`. It may use the statements `if`, `for` and `set`, and filters.
    template: String,
    /// The values, each by the name that the template uses.
    #[serde(default)]
    values: Map<String, Value>,
    /// How values are written.
    #[serde(default)]
    escape: Escape,
}

/// How values are written into the text.
#[weir_sdk::input]
#[derive(Clone, Copy, Default)]
#[serde(rename_all = "snake_case")]
enum Escape {
    /// As they are.
    #[default]
    None,
    /// So that HTML shows them as they are.
    Html,
    /// As JSON.
    Json,
}

weir_sdk::plugin! {
    /// Renders a text from a template in the language of Jinja, and values.
    #[tool(title = "Render a template", read_only, idempotent, open_world = false)]
    fn render(input: Render, _cx: &Context) -> Result<Text, ToolError> {
        let escape = input.escape;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_auto_escape_callback(move |_| match escape {
            Escape::None => AutoEscape::None,
            Escape::Html => AutoEscape::Html,
            Escape::Json => AutoEscape::Json,
        });
        let template = environment.template_from_str(&input.template).map_err(|error| refused(&error))?;
        let mut page = Page(Vec::new());
        template.render_captured_to(Serde(&input.values), &mut page).map_err(|error| refused(&error))?;
        Ok(Text(String::from_utf8(page.0)?))
    }
}

/// What a template gives, up to a bound.
struct Page(Vec<u8>);

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_MAX_BYTES {
            return Err(io::Error::other(format!("the text would have more than {OUTPUT_MAX_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A template that does not work: the same call will not work the next time either.
fn refused(error: &Error) -> ToolError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    ToolError::invalid_arguments(format!("/template: {}{detail}{cause}{line}", error.kind()))
        .with_code("template_failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(arguments: Value) -> String {
        testing::call("render", arguments).unwrap().text()
    }

    #[test]
    fn values_are_put_in_their_places() {
        let template = "Dear {{ who.name }},\n{% for item in items %}- {{ item|upper }}\n{% endfor %}";
        let values = json!({"who": {"name": "Ada"}, "items": ["tea", "milk"]});
        assert_eq!(rendered(json!({"template": template, "values": values})), "Dear Ada,\n- TEA\n- MILK\n");
        assert_eq!(rendered(json!({"template": "no values"})), "no values");
    }

    #[test]
    fn values_are_escaped_as_is_asked() {
        for (escape, text) in [("none", "<a> & \"b\""), ("html", "&lt;a&gt; &amp; &quot;b&quot;")] {
            let values = json!({"it": "<a> & \"b\""});
            assert_eq!(rendered(json!({"template": "{{ it }}", "values": values, "escape": escape})), text);
        }
        let values = json!({"it": {"a": [1, "x"]}});
        assert_eq!(rendered(json!({"template": "{{ it }}", "values": values, "escape": "json"})), r#"{"a":[1,"x"]}"#);
    }

    #[test]
    fn what_cannot_be_rendered_is_told_with_its_line() {
        for (template, parts) in [
            ("one\n{{ missing }}", &["undefined", "line 2"][..]),
            ("{% for %}", &["syntax error", "line 1"]),
            ("{% include 'a' %}", &["unknown statement include"]),
            ("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", &["ran out of fuel"]),
            ("{% for a in range(100000) %}0123456789{% endfor %}", &["more than 524288 bytes"]),
        ] {
            let error = testing::call("render", json!({"template": template})).unwrap_err();
            assert_eq!(error.code(), Some("template_failed"));
            assert!(parts.iter().all(|part| error.message().contains(part)), "{template}: {}", error.message());
        }
    }
}
