//! Values of a step with `{{ expression }}` in them.
//!
//! The text around expressions is ours: a string that is exactly one expression keeps the JSON type of its value, any
//! other string becomes text.

use indexmap::IndexMap;
use serde_json::Value;

use super::expression::{Expression, Place, Scope};
use super::limits::EXPRESSION_OUTPUT_MAX_BYTES;

/// A value of a step: JSON in which strings may hold expressions.
#[derive(Debug)]
pub enum Template {
    /// No expression inside.
    Literal(Value),
    /// Exactly one expression: its value keeps its type.
    Whole(Expression),
    /// Text with expressions in between.
    Text(Vec<Part>),
    /// An array with an expression somewhere inside.
    Array(Vec<Template>),
    /// An object with an expression somewhere inside.
    Object(IndexMap<String, Template>),
}

/// A piece of a text template.
#[derive(Debug)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// Replaced by its value: a string as it is, anything else as JSON.
    Value(Expression),
}

impl Template {
    /// Parses `value`; faults in any expression inside are noted with their pointers.
    pub fn parse(value: &Value, place: &Place<'_>) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse_text(text, place),
            Value::Array(items) => {
                let parsed: Vec<Option<Self>> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| Self::parse(item, &place.below(&index.to_string())))
                    .collect();
                let items: Vec<Self> = parsed.into_iter().collect::<Option<_>>()?;
                if items.iter().all(|item| matches!(item, Self::Literal(_))) {
                    return Some(Self::Literal(value.clone()));
                }
                Some(Self::Array(items))
            }
            Value::Object(members) => {
                let parsed: Vec<(String, Option<Self>)> = members
                    .iter()
                    .map(|(name, member)| (name.clone(), Self::parse(member, &place.below(name))))
                    .collect();
                let members: IndexMap<String, Self> =
                    parsed.into_iter().map(|(name, member)| Some((name, member?))).collect::<Option<_>>()?;
                if members.values().all(|member| matches!(member, Self::Literal(_))) {
                    return Some(Self::Literal(value.clone()));
                }
                Some(Self::Object(members))
            }
            other => Some(Self::Literal(other.clone())),
        }
    }

    fn parse_text(text: &str, place: &Place<'_>) -> Option<Self> {
        let pieces = match split(text) {
            Ok(pieces) => pieces,
            Err(message) => {
                place.faults.add(&place.pointer, message);
                return None;
            }
        };
        match pieces.as_slice() {
            [] => return Some(Self::Literal(Value::String(String::new()))),
            [Piece::Text(only)] => return Some(Self::Literal(Value::String((*only).to_owned()))),
            [Piece::Expression(only)] => return Expression::parse(only, place).map(Self::Whole),
            _ => {}
        }
        let parsed: Vec<Option<Part>> = pieces
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(text) => Some(Part::Text(text.to_owned())),
                Piece::Expression(source) => Expression::parse(source, place).map(Part::Value),
            })
            .collect();
        Some(Self::Text(parsed.into_iter().collect::<Option<_>>()?))
    }

    /// Of a template of a URL: the secret that stands before the query, if one surely does. Another expression may bring the
    /// beginning of the query, unless a path goes on behind it.
    #[must_use]
    pub fn secret_before_query(&self) -> Option<&str> {
        let parts = match self {
            Self::Whole(expression) => return expression.secret(),
            Self::Text(parts) => parts,
            Self::Literal(_) | Self::Array(_) | Self::Object(_) => return None,
        };
        let mut sure = true;
        for part in parts {
            match part {
                Part::Text(text) if text.contains(['?', '#']) || !sure && text.contains(['&', '=']) => return None,
                Part::Text(text) => sure |= text.contains('/'),
                Part::Value(expression) => match expression.secret() {
                    Some(name) if sure => return Some(name),
                    Some(_) => {}
                    None => sure = false,
                },
            }
        }
        None
    }

    /// Evaluates the template to JSON.
    pub fn render(&self, scope: &dyn Scope) -> Result<Value, String> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Whole(expression) => expression.eval(scope),
            Self::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Text(piece) => text.push_str(piece),
                        Part::Value(expression) => text.push_str(&plain_text(&expression.eval(scope)?)),
                    }
                    if text.len() > EXPRESSION_OUTPUT_MAX_BYTES {
                        return Err(format!("the text is larger than {EXPRESSION_OUTPUT_MAX_BYTES} bytes"));
                    }
                }
                Ok(Value::String(text))
            }
            Self::Array(items) => items.iter().map(|item| item.render(scope)).collect::<Result<_, _>>(),
            Self::Object(members) => members
                .iter()
                .map(|(name, member)| Ok((name.clone(), member.render(scope)?)))
                .collect::<Result<serde_json::Map<_, _>, String>>()
                .map(Value::Object),
        }
    }
}

/// A string as it is, anything else as JSON text.
#[must_use]
pub fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

enum Piece<'a> {
    Text(&'a str),
    Expression(&'a str),
}

/// Splits a text at its `{{ }}`; braces inside quotes or inside dict literals do not end an expression.
fn split(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        if open > 0 {
            pieces.push(Piece::Text(&rest[..open]));
        }
        let inside = &rest[open + 2..];
        let close = end_of_expression(inside)
            .ok_or_else(|| "`{{` without its `}}`; write `{{ \"{{\" }}` for the two braces themselves".to_owned())?;
        pieces.push(Piece::Expression(&inside[..close]));
        rest = &inside[close + 2..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

fn end_of_expression(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut quote, mut at) = (0_u32, None, 0);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, c @ (b'"' | b'\'')) => quote = Some(c),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::HashSet;

    use serde_json::json;

    use super::super::reader::Faults;
    use super::*;

    struct Fixed(Value);

    impl Scope for Fixed {
        fn root(&self, name: &str) -> minijinja::Value {
            minijinja::Value::from(minijinja::value::Serde(&self.0[name]))
        }

        fn secret(&self, name: &str) -> String {
            format!("[{name}]")
        }

        fn charge(&self, _: usize) -> Result<(), String> {
            Ok(())
        }
    }

    fn parse(value: &Value) -> Result<Template, Vec<super::super::reader::Fault>> {
        let (faults, earlier, count) = (Faults::default(), HashSet::from(["a".to_owned()]), Cell::new(0));
        let place =
            Place { pointer: "/v".into(), earlier: &earlier, faults: &faults, expressions: &count, secrets: None };
        let parsed = Template::parse(value, &place);
        parsed.ok_or_else(|| faults.into_vec())
    }

    fn render(value: &Value) -> Result<Value, String> {
        let scope = Fixed(json!({"steps": {"a": {"result": {"n": 3, "big": 9_007_199_254_740_993_u64}}},
                                 "trigger": {"body": {"who": "Ada", "none": null}}}));
        parse(value).expect("sound template").render(&scope)
    }

    #[test]
    fn one_expression_keeps_its_type_and_text_becomes_text() {
        assert_eq!(render(&json!("{{ steps.a.result.n + 1 }}")), Ok(json!(4)));
        assert_eq!(render(&json!("{{steps.a.result.big}}")), Ok(json!(9_007_199_254_740_993_u64)));
        assert_eq!(render(&json!("{{ trigger.body }}")), Ok(json!({"who": "Ada", "none": null})));
        assert_eq!(
            render(&json!("Hi {{ trigger.body.who }}: {{ steps.a.result }}!")).expect("renders"),
            json!("Hi Ada: {\"n\":3,\"big\":9007199254740993}!")
        );
        assert_eq!(render(&json!({"k": ["{{ trigger.body.who|upper }}", 1]})), Ok(json!({"k": ["ADA", 1]})));
        assert_eq!(render(&json!("{{ {'a': {'b': '}}'}} }}")), Ok(json!({"a": {"b": "}}"}})));
        assert_eq!(render(&json!("{{ '{{' }}x")), Ok(json!("{{x")));
    }

    #[test]
    fn undefined_is_an_error_and_never_silently_empty() {
        for source in [
            "{{ steps.a.result.nope }}",
            "x{{ steps.a.result.nope }}",
            "{{ trigger.nope.deeper }}",
            "{{ [trigger.nope] }}",
            "{{ {'a': {'b': trigger.nope}} }}",
            "{{ [{'q': 1}]|map(attribute='z')|list }}",
            "{{ 2.0 ** 5000 }}",
            "{{ [1e400] }}",
            "{{ range }}",
        ] {
            assert!(render(&json!(source)).is_err(), "{source}");
        }
        assert_eq!(render(&json!("{{ steps.a.result.nope is defined }}")), Ok(json!(false)));
    }

    #[test]
    fn all_faults_are_found_with_their_pointers() {
        let value = json!({"x": "{{ steps.later.result }}", "y": ["{{ 1 + }}", "{{ oops", "{{ secrets.k }}"]});
        let faults = parse(&value).expect_err("four faults");
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/v/x", "/v/y/0", "/v/y/1", "/v/y/2"]);
    }

    /// A template of what may have secrets, or its first fault.
    fn with_secrets(text: &str) -> Result<Template, String> {
        let (faults, earlier, count) = (Faults::default(), HashSet::new(), Cell::new(0));
        let named = RefCell::default();
        let place = Place {
            pointer: "/v".into(),
            earlier: &earlier,
            faults: &faults,
            expressions: &count,
            secrets: Some(&named),
        };
        let template = Template::parse(&json!(text), &place);
        template.ok_or_else(|| faults.into_vec()[0].message.clone())
    }

    #[test]
    fn a_secret_before_the_query_of_a_url_is_seen() {
        for (text, secret) in [
            ("https://x/{{ secrets.tok }}", Some("tok")),
            ("https://x/{{ secrets.tok }}?q=1", Some("tok")),
            ("https://{{ secrets.user }}:{{ secrets.tok }}@x/", Some("user")),
            ("https://x/{{ trigger.body.id }}/{{ secrets['tok'] }}", Some("tok")),
            ("{{ secrets.tok }}", Some("tok")),
            ("https://x/?k={{ secrets.tok }}", None),
            ("https://x?k={{ secrets.tok }}/a", None),
            // What comes first may have a query of its own.
            ("{{ trigger.body.next }}&k={{ secrets.tok }}/{{ secrets.other }}", None),
            ("{{ trigger.body.begins }}{{ secrets.tok }}", None),
            ("https://x/{{ trigger.body.id }}", None),
            ("https://x/", None),
        ] {
            assert_eq!(with_secrets(text).expect(text).secret_before_query(), secret, "{text}");
        }
    }

    #[test]
    fn a_secret_stands_alone() {
        let with_secrets = |text: &str| with_secrets(text).map(|template| template.render(&Fixed(json!({}))));
        for (text, value) in [
            ("{{ secrets.tok }}", "[tok]"),
            ("Bearer {{secrets.tok}}!{{ secrets.b_2 }}", "Bearer [tok]![b_2]"),
            ("{{ secrets[\"my-token.v2\"] }} {{ secrets['a'] }}", "[my-token.v2] [a]"),
        ] {
            assert_eq!(with_secrets(text), Ok(Ok(json!(value))), "{text}");
        }
        let (text, fault) = ("{{ 'secrets.tok' ~ run.secrets ~ run . secrets ~ 'it\\'s' }}", "undefined");
        assert!(with_secrets(text).is_ok_and(|rendered| rendered.is_err_and(|error| error.contains(fault))), "{text}");
        for text in [
            "{{ secrets.tok | upper }}",
            "{{ '\\'' ~ secrets.tok[1:] }}",
            "{{ secrets.tok | length }}",
            "{{ secrets.tok | replace('a', 'b') }}",
            "{{ secrets.tok == 'x' }}",
            "{{ secrets.tok ~ 'x' }}",
            "{{ secrets.tok[1:] }}",
            "{{ secrets.tok.upper() }}",
            "{{ secrets.tok.deeper }}",
            "{{ secrets.tok if true else 'x' }}",
            "{{ 'x' if secrets.tok else 'y' }}",
            "{{ [secrets.tok] }}",
            "{{ (secrets.tok) }}",
            "{{ secrets.my-token }}",
            "{{ secrets['a' ~ 'b'] }}",
            "{{ secrets[\"a\"][\"b\"] }}",
            "{{ secrets[\"\\u0061\"] }}",
            "{{ secrets }}",
            "{{ secrets | list }}",
        ] {
            let fault = with_secrets(text).expect_err(text);
            assert!(fault.contains("a secret stands alone"), "{text}: {fault}");
        }
    }

    #[test]
    fn evaluation_is_bounded() {
        for bomb in [
            "{{ ('x' * 1000000) * 1000000 }}",
            "{{ range(100000)|map('string')|join('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx') }}",
            "{{ [0] * 100000000 }}",
            "{{ [[0] * 3000] * 3000000 }}",
            "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
        ] {
            assert!(render(&json!(bomb)).is_err(), "{bomb}");
        }
    }
}
