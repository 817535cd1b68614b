//! The text of a page or of a mail in HTML, for people and models that read it without a browser.
//!
//! Nothing is fetched and no script runs: it is about what stands in the text that is given.

use html2text::config;
use html2text::render::TrivialDecorator;
use weir_sdk::prelude::*;

/// What to read.
#[weir_sdk::input]
struct Page {
    /// The HTML: a document, or a piece of one.
    html: String,
    /// What becomes of headings, emphasis and links.
    #[serde(default)]
    style: Style,
    /// Characters in a line before it is wrapped.
    #[serde(default = "width")]
    #[schemars(range(min = 20, max = 1000))]
    width: usize,
}

/// What becomes of headings, emphasis and links.
#[weir_sdk::input]
#[derive(Default)]
#[serde(rename_all = "snake_case")]
enum Style {
    /// The words alone.
    #[default]
    Plain,
    /// Marks as in Markdown, and the addresses of links as numbered notes at the end.
    Marked,
}

fn width() -> usize {
    80
}

weir_sdk::plugin! {
    /// Reads the text of a page or of a mail in HTML: without scripts and styles, with lists and tables laid out, and
    /// with its links where that is asked.
    #[tool(title = "HTML to text", read_only, idempotent, open_world = false)]
    fn html_to_text(input: Page, _cx: &Context) -> Result<Text, ToolError> {
        // A line as wide as a number can be would be drawn for a `<hr>`.
        if !(20..=1000).contains(&input.width) {
            return Err(ToolError::invalid_arguments("/width: is from 20 to 1000"));
        }
        let html = input.html.as_bytes();
        let text = match input.style {
            Style::Plain => config::with_decorator(TrivialDecorator::new()).no_table_borders().string_from_read(html, input.width),
            Style::Marked => config::plain().string_from_read(html, input.width),
        };
        let text = text.map_err(|error| ToolError::invalid_arguments(format!("/html: {error}")).with_code("html_unreadable"))?;
        Ok(Text(text.trim_matches('\n').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<html><head><title>News</title><style>p { color: red }</style></head><body><h1>News</h1>\
        <p>Tea &amp; <em>milk</em> at <a href=\"https://example.com/shop\">the shop</a>.</p>\
        <script>alert('no')</script><ul><li>one</li><li>two</li></ul></body></html>";

    fn text(arguments: Value) -> String {
        testing::call("html_to_text", arguments).unwrap().text()
    }

    #[test]
    fn the_words_are_read_alone() {
        assert_eq!(text(json!({"html": PAGE})), "News\n\nTea & milk at the shop.\none\ntwo");
        assert_eq!(text(json!({"html": ""})), "");
        assert_eq!(text(json!({"html": "no tags, <b>one left open"})), "no tags, one left open");
    }

    #[test]
    fn marks_and_links_are_kept_when_asked() {
        let marked = "# News\n\nTea & *milk* at [the shop][1].\n* one\n* two\n\n[1]: https://example.com/shop";
        assert_eq!(text(json!({"html": PAGE, "style": "marked"})), marked);
    }

    #[test]
    fn lines_are_wrapped() {
        let html = format!("<p>{}</p><hr>", "word ".repeat(100));
        let wrapped = text(json!({"html": html, "width": 30}));
        assert!(wrapped.lines().all(|line| line.chars().count() <= 30) && wrapped.lines().count() > 10, "{wrapped}");
        let error = testing::call("html_to_text", json!({"html": html, "width": 1_000_000})).unwrap_err();
        assert!(error.message().contains("/width"), "{error:?}");
    }

    #[test]
    fn depth_is_no_trouble() {
        let html = format!("{}deep{}", "<div>".repeat(2_000), "</div>".repeat(2_000));
        assert_eq!(text(json!({"html": html})), "deep");
    }
}
