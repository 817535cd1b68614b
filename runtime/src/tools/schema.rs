//! JSON Schemas of tools, from strangers: bounded before they are used, so that no value can make them costly.
//!
//! Nothing is ever fetched, a `$ref` stays inside its schema, patterns run in linear time, and the work that a value
//! can cause is known beforehand: from the schema alone where that is enough, else by counting for each value.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::count::{Count, Trouble, VALUE_VISITS_MAX};
use crate::model::journal::{json_fits, json_size_bytes};
use crate::model::reader::{Fault, JSON_DEPTH_MAX};

/// Longest schema, in bytes of JSON text.
const SCHEMA_MAX_BYTES: usize = 64 * 1024;

/// Deepest nesting inside one schema.
const SCHEMA_DEPTH_MAX: usize = 32;

/// Memory for one compiled pattern, in bytes.
const PATTERN_MAX_BYTES: usize = 64 * 1024;

/// Most patterns in one schema.
const PATTERNS_MAX: usize = 64;

/// Dialects that are read as they are meant. Others give a place another address in ways that the count does not know.
const DIALECTS: [&str; 4] = [
    "json-schema.org/draft/2020-12/schema",
    "json-schema.org/draft/2019-09/schema",
    "json-schema.org/draft-07/schema",
    "json-schema.org/draft-06/schema",
];

/// A value of so many bytes is held against a schema without patterns where the caller is; others in the background.
const QUICK_MAX_BYTES: usize = 16 * 1024;

/// Most faults that are told of one value.
const FAULTS_MAX: usize = 32;

/// A schema that values can be held against.
pub(super) struct Schema {
    validator: Validator,
    /// The schema, where some value could make it costly: each value is counted first.
    costly: Option<Value>,
    /// Patterns in it: each takes memory, and time for each byte of a text.
    pub(super) patterns: usize,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it, with the pointer of the place.
    pub(super) fn compile(schema: &Value) -> Result<Self, String> {
        let size = json_size_bytes(schema);
        if size > SCHEMA_MAX_BYTES {
            return Err(format!("is {size} bytes long; the limit is {SCHEMA_MAX_BYTES} bytes"));
        }
        refuse_dialect(schema)?;
        refuse_references(schema, "", SCHEMA_DEPTH_MAX)?;
        let patterns = count_patterns(schema);
        if patterns > PATTERNS_MAX {
            return Err(format!("has {patterns} patterns, more than {PATTERNS_MAX}"));
        }
        let costly = match Count::new(schema).of_paths(schema, JSON_DEPTH_MAX) {
            Ok(_) => None,
            Err(Trouble::Costly) => Some(schema.clone()),
            Err(Trouble::Wrong(message)) => return Err(message),
        };
        let options = PatternOptions::regex().size_limit(PATTERN_MAX_BYTES).dfa_size_limit(PATTERN_MAX_BYTES);
        let options = jsonschema::options().offline().with_pattern_options(options);
        let wrong = |error: jsonschema::ValidationError<'_>| {
            let at = error.instance_path().to_string();
            let rule = if at.ends_with("/pattern") {
                " that runs in linear time (no look-around, no back references)"
            } else {
                ""
            };
            format!("{at}: {error}{rule}")
        };
        Ok(Self { validator: options.build(schema).map_err(wrong)?, costly, patterns })
    }

    /// Whether `value` can be held against the schema in the blink of an eye.
    pub(super) fn is_quick(&self, value: &Value) -> bool {
        self.costly.is_none() && self.patterns == 0 && json_fits(value, QUICK_MAX_BYTES)
    }

    /// What of `value` does not fit, with pointers below `root`. Values are not repeated in the messages: they may be
    /// secret.
    pub(super) fn faults(&self, value: &Value, root: &str) -> Vec<Fault> {
        if let Some(schema) = &self.costly
            && Count::new(schema).of_value(schema, value).is_err()
        {
            let message = format!("takes more than {VALUE_VISITS_MAX} steps to hold against the schema");
            return vec![Fault { pointer: root.to_owned(), message }];
        }
        let fault = |error: jsonschema::ValidationError<'_>| Fault {
            pointer: format!("{root}{}", error.instance_path()),
            message: error.masked().to_string(),
        };
        self.validator.iter_errors(value).take(FAULTS_MAX).map(fault).collect()
    }
}

fn refuse_dialect(schema: &Value) -> Result<(), String> {
    let Some(dialect) = schema.get("$schema") else { return Ok(()) };
    let name = dialect.as_str().unwrap_or_default().trim_end_matches('#');
    let name = name.trim_start_matches("https://").trim_start_matches("http://");
    if DIALECTS.contains(&name) {
        return Ok(());
    }
    Err(format!("/$schema: {dialect} is not one of 2020-12, 2019-09, draft-07 and draft-06"))
}

/// Patterns anywhere in a schema. A property that is called `pattern` has a schema, and no text.
fn count_patterns(schema: &Value) -> usize {
    match schema {
        Value::Array(items) => items.iter().map(count_patterns).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                ("pattern", Value::String(_)) => 1,
                ("patternProperties", Value::Object(schemas)) => schemas.len() + count_patterns(value),
                _ => count_patterns(value),
            })
            .sum(),
        _ => 0,
    }
}

/// References lead to a place in the schema itself, and nothing gives a place another address.
fn refuse_references(schema: &Value, pointer: &str, depth: usize) -> Result<(), String> {
    if depth == 0 {
        return Err(format!("{pointer}: is more than {SCHEMA_DEPTH_MAX} levels deep"));
    }
    match schema {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(n, item)| refuse_references(item, &format!("{pointer}/{n}"), depth - 1)),
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            let here = crate::model::reader::join(pointer, name);
            match (name.as_str(), value) {
                ("$ref", Value::String(to)) if to != "#" && !to.starts_with("#/") => {
                    Err(format!("{here}: `{to}` is not a reference inside the schema, such as `#/$defs/name`"))
                }
                ("$id" | "$anchor" | "$dynamicAnchor" | "$dynamicRef" | "$recursiveRef", Value::String(_))
                    if !pointer.is_empty() || name != "$id" =>
                {
                    Err(format!("{here}: `{name}` is not supported here"))
                }
                _ => refuse_references(value, &here, depth - 1),
            }
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn refused(schema: &Value) -> String {
        Schema::compile(schema).err().unwrap_or_default()
    }

    #[test]
    fn usual_schemas_are_taken_and_say_where_a_value_is_wrong() {
        let tree = json!({
            "type": "object",
            "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "value": {"type": "integer"}},
            "additionalProperties": false,
        });
        let schema = Schema::compile(&tree).expect("sound");
        assert_eq!(schema.faults(&json!({"left": {"value": 1}}), "/input"), []);
        let faults = schema.faults(&json!({"left": {"value": "s3cret"}, "extra": 1}), "/input");
        assert_eq!(faults.len(), 2, "{faults:?}");
        let fault = faults.iter().find(|fault| fault.pointer == "/input/left/value").expect("named");
        assert!(!fault.message.contains("s3cret"), "{fault:?}");
        let expression = json!({"type": "object", "$defs": {"e": {"oneOf": [
            {"properties": {"and": {"type": "array", "items": {"$ref": "#/$defs/e"}}}, "required": ["and"]},
            {"properties": {"or": {"type": "array", "items": {"$ref": "#/$defs/e"}}}, "required": ["or"]},
            {"properties": {"not": {"$ref": "#/$defs/e"}}, "required": ["not"]},
            {"properties": {"is": {"type": "string"}}, "required": ["is"]},
        ]}}, "properties": {"where": {"$ref": "#/$defs/e"}}});
        let schema = Schema::compile(&expression).expect("sound");
        assert_eq!(schema.faults(&json!({"where": {"and": [{"is": "a"}, {"not": {"is": "b"}}]}}), ""), []);
    }

    #[test]
    fn costly_schemas_are_refused() {
        assert!(refused(&json!({"$ref": "https://example.com/schema.json"})).contains("/$ref: "));
        assert!(refused(&json!({"$ref": "#name"})).contains("/$ref: "));
        assert!(refused(&json!({"$ref": "#/$defs/a"})).contains("leads nowhere"));
        assert!(refused(&json!({"$ref": "#"})).contains("refers to itself"));
        assert!(refused(&json!({"properties": {"a": {"$id": "x"}}})).contains("/properties/a/$id"));
        assert!(
            refused(&json!({"allOf": [{"$ref": "#/allOf/1"}, {"$ref": "#/allOf/0"}]})).contains("refers to itself")
        );
        let bomb: Map<String, Value> = (0..30)
            .map(|n| (format!("d{n}"), json!({"allOf": [{"$ref": format!("#/$defs/d{}", n + 1)}, {"$ref": format!("#/$defs/d{}", n + 1)}]})))
            .chain([("d30".to_owned(), json!({}))])
            .collect();
        assert!(refused(&json!({"$defs": bomb, "$ref": "#/$defs/d0"})).contains("more than 1000 subschemas"));
        assert!(refused(&json!({"pattern": "(a)\\1"})).contains("pattern"));
        assert!(refused(&json!({"pattern": "[ab]*a[ab]{5000}c"})).contains("pattern"));
        let many: Vec<Value> = vec![json!({"pattern": "a"}); PATTERNS_MAX + 1];
        assert!(refused(&json!({"prefixItems": many})).contains("65 patterns"));
        let again: Map<String, Value> = (0..30)
            .map(|n| {
                (
                    format!("d{n}"),
                    json!({"allOf": [{"$ref": format!("#/$defs/d{}", n + 1)}], "unevaluatedProperties": false}),
                )
            })
            .chain([("d30".to_owned(), json!({"properties": {"a": true}}))])
            .collect();
        assert!(refused(&json!({"$defs": again, "$ref": "#/$defs/d0"})).contains("unevaluatedProperties"));
        let dialect = "http://json-schema.org/draft-04/schema#";
        assert!(refused(&json!({"$schema": dialect})).contains("draft-04"));
        assert!(refused(&json!({"description": "x".repeat(SCHEMA_MAX_BYTES)})).contains("the limit is 65536 bytes"));
        let deep = (0..40).fold(json!({}), |inner, _| json!({"not": inner}));
        assert!(refused(&deep).contains("levels deep"));
    }

    #[test]
    fn where_the_schema_could_explode_each_value_is_counted() {
        let doubling = json!({"items": {"$ref": "#"}, "allOf": [{"items": {"$ref": "#"}}]});
        let schema = Schema::compile(&doubling).expect("sound");
        let nested = |levels: usize| (0..levels).fold(json!([]), |inner, _| json!([inner]));
        assert_eq!(schema.faults(&nested(12), "/input"), []);
        let fault = &schema.faults(&nested(60), "/input")[0];
        assert!(fault.pointer == "/input" && fault.message.contains("1000000 steps"), "{fault:?}");
        // The arms of a union speak of the same members, as generators write them for expressions.
        let arm = |op: &str| {
            json!({"type": "object", "required": ["op", "args"], "properties": {
            "op": {"const": op}, "args": {"type": "array", "items": {"$ref": "#/$defs/an%20expression"}}}})
        };
        let union = json!({"$ref": "#/$defs/an%20expression", "$defs": {"an expression": {"anyOf": [
            {"type": "integer"}, arm("and"), arm("or")]}}});
        let schema = Schema::compile(&union).expect("sound");
        let value = json!({"op": "and", "args": [{"op": "or", "args": [1, {"op": "and", "args": [2, 3]}]}, 4]});
        assert_eq!(schema.faults(&value, ""), []);
        assert_eq!(schema.faults(&json!({"op": "xor", "args": []}), "").len(), 1);
    }

    #[test]
    fn patterns_run_in_linear_time() {
        let schema = Schema::compile(&json!({"pattern": "^(a+)+$"})).expect("sound");
        let value = Value::String("a".repeat(100_000) + "!");
        assert_eq!(schema.faults(&value, "").len(), 1);
    }
}
