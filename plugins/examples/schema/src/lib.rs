//! Holds a value against a JSON Schema: what came from a form, a model or another service, before it is used.
//!
//! A schema may come from anywhere, so it is bounded: in size and depth, in patterns, which run in linear time (no
//! look-around, no back references), and by the fuel of the call. Nothing is ever fetched: a `$ref` stays inside.

#[cfg(target_arch = "wasm32")]
mod random;

use jsonschema::{Draft, PatternOptions, ValidationError};
use weir_sdk::prelude::*;

/// Longest schema, in bytes of JSON text.
const SCHEMA_MAX_BYTES: usize = 64 * 1024;

/// Deepest nesting in a schema, and in a value.
const DEPTH_MAX: usize = 64;

/// Memory for one compiled pattern, in bytes.
const PATTERN_MAX_BYTES: usize = 64 * 1024;

/// Most faults that are told.
const FAULTS_MAX: usize = 100;

/// What to check.
#[weir_sdk::input]
struct Check {
    /// JSON Schema, in its dialect 2020-12 unless `$schema` names an older one.
    schema: Value,
    /// The value.
    value: Value,
}

/// What came of it.
#[weir_sdk::output]
struct Checked {
    /// Whether the value fits.
    valid: bool,
    /// What of it does not fit: at most 100 faults.
    faults: Vec<Fault>,
}

/// One place that does not fit.
#[weir_sdk::output]
struct Fault {
    /// JSON Pointer to the place in the value; empty for the whole of it.
    pointer: String,
    /// What is wrong there.
    message: String,
}

weir_sdk::plugin! {
    /// Holds a value against a JSON Schema (2020-12), and answers what of it does not fit. A schema that is none is an
    /// error, a value that does not fit is an answer.
    #[tool(title = "Check against a JSON Schema", read_only, idempotent, open_world = false)]
    fn check(input: Check, _cx: &Context) -> Result<Json<Checked>, ToolError> {
        let size = input.schema.to_string().len();
        if size > SCHEMA_MAX_BYTES {
            return Err(unusable(&format!("it has {size} bytes; the limit is {SCHEMA_MAX_BYTES} bytes")));
        }
        if is_deeper(&input.schema, DEPTH_MAX) {
            return Err(unusable(&format!("it is nested deeper than {DEPTH_MAX} levels")));
        }
        if is_deeper(&input.value, DEPTH_MAX) {
            return Err(ToolError::invalid_arguments(format!("/value: is nested deeper than {DEPTH_MAX} levels")));
        }
        let patterns = PatternOptions::regex().size_limit(PATTERN_MAX_BYTES).dfa_size_limit(PATTERN_MAX_BYTES);
        let mut options = jsonschema::options().offline().with_pattern_options(patterns);
        if input.schema.get("$schema").is_none() {
            options = options.with_draft(Draft::Draft202012);
        }
        let wrong = |error: ValidationError<'_>| unusable(&format!("{}: {error}", error.instance_path()));
        let validator = options.build(&input.schema).map_err(wrong)?;
        let fault = |error: ValidationError<'_>| Fault { pointer: error.instance_path().to_string(), message: error.masked().to_string() };
        let faults: Vec<Fault> = validator.iter_errors(&input.value).take(FAULTS_MAX).map(fault).collect();
        Ok(Json(Checked { valid: faults.is_empty(), faults }))
    }
}

fn unusable(what: &str) -> ToolError {
    ToolError::invalid_arguments(format!("/schema: {what}")).with_code("schema_unusable")
}

/// Whether more than `levels` lists and objects lie in one another.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return value.is_array() || value.is_object() };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper(item, below)),
        Value::Object(members) => members.values().any(|member| is_deeper(member, below)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(schema: Value, value: Value) -> Value {
        testing::call("check", json!({"schema": schema, "value": value})).unwrap().structured.unwrap()
    }

    fn order() -> Value {
        json!({
            "type": "object",
            "properties": {"id": {"type": "integer"}, "items": {"type": "array", "items": {"$ref": "#/$defs/item"}}},
            "required": ["id"],
            "$defs": {"item": {"type": "string", "pattern": "^[a-z]+$"}},
        })
    }

    #[test]
    fn a_value_that_fits_is_valid() {
        assert_eq!(checked(order(), json!({"id": 7, "items": ["tea"]})), json!({"valid": true, "faults": []}));
        assert_eq!(checked(json!(true), json!(null))["valid"], true);
        assert_eq!(checked(json!({"prefixItems": [{"type": "null"}]}), json!([1]))["valid"], false, "it is of 2020-12");
    }

    #[test]
    fn each_fault_is_told_with_its_place() {
        let answer = checked(order(), json!({"items": ["tea", 7, "A"]}));
        let faults = answer["faults"].as_array().unwrap();
        let mut pointers: Vec<&str> = faults.iter().map(|fault| fault["pointer"].as_str().unwrap()).collect();
        pointers.sort_unstable();
        assert_eq!((&answer["valid"], pointers), (&json!(false), vec!["", "/items/1", "/items/2"]));
        assert!(faults.iter().any(|fault| fault["message"] == "\"id\" is a required property"), "{answer}");
        let many: Value = (0..200).collect();
        assert_eq!(checked(json!({"items": false}), many)["faults"].as_array().unwrap().len(), 100);
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_refused() {
        let deep = (0..65).fold(json!({}), |schema, _| json!({"not": schema}));
        for (schema, part) in [
            (json!({"type": "text"}), "/type"),
            (json!({"$ref": "https://example.com/schema.json"}), "example.com"),
            (json!({"$ref": "#/$defs/none"}), "none"),
            (json!({"pattern": "(?=a)b"}), "/pattern"),
            (json!({"pattern": "(\\w{100}){100}"}), "/pattern"),
            (json!({"description": "x".repeat(SCHEMA_MAX_BYTES)}), "the limit is 65536 bytes"),
            (deep, "deeper than 64 levels"),
        ] {
            let error = testing::call("check", json!({"schema": schema, "value": 1})).unwrap_err();
            assert_eq!(error.code(), Some("schema_unusable"));
            assert!(error.message().contains(part), "{}", error.message());
        }
    }
}
