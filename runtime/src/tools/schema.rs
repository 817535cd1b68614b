//! JSON Schemas of tools, from strangers: bounded before they are compiled, so that no value can make them costly.
//!
//! Nothing is ever fetched, a `$ref` stays inside its schema, patterns run in linear time, and the work that a value
//! can cause at any place in it is known beforehand.

use std::cell::Cell;
use std::collections::HashMap;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use crate::model::journal::json_size_bytes;
use crate::model::reader::{Fault, JSON_DEPTH_MAX};

/// Longest schema, in bytes of JSON text.
const SCHEMA_MAX_BYTES: usize = 64 * 1024;

/// Deepest nesting inside one schema.
const SCHEMA_DEPTH_MAX: usize = 32;

/// Most subschemas that any one path into a value is held against.
const VISITS_MAX: u64 = 1_000;

/// Most steps that the count of these visits itself may take.
const STEPS_MAX: u64 = 1_000_000;

/// Memory for one compiled pattern, in bytes.
const PATTERN_MAX_BYTES: usize = 256 * 1024;

/// Most faults that are told of one value.
const FAULTS_MAX: usize = 32;

/// A schema that values can be held against.
pub(super) struct Schema(Validator);

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
        refuse_references(schema, "", SCHEMA_DEPTH_MAX)?;
        Visits { root: schema, known: HashMap::new(), steps: Cell::new(0) }.of(schema, JSON_DEPTH_MAX)?;
        let patterns = PatternOptions::regex().size_limit(PATTERN_MAX_BYTES).dfa_size_limit(PATTERN_MAX_BYTES);
        let options = jsonschema::options().offline().with_pattern_options(patterns);
        let wrong = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
        options.build(schema).map(Self).map_err(wrong)
    }

    /// What of `value` does not fit, with pointers below `root`. Values are not repeated in the messages: they may be
    /// secret.
    pub(super) fn faults(&self, value: &Value, root: &str) -> Vec<Fault> {
        let fault = |error: jsonschema::ValidationError<'_>| Fault {
            pointer: format!("{root}{}", error.instance_path()),
            message: error.masked().to_string(),
        };
        self.0.iter_errors(value).take(FAULTS_MAX).map(fault).collect()
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

/// Counts the subschemas that a value's places are held against.
///
/// At one place these are the schema and all that it applies there (`allOf`, `$ref`, ...). Each of them may say
/// something about a child, and what it says adds up for the same child; different children are different paths.
struct Visits<'s> {
    root: &'s Value,
    known: HashMap<(*const Value, usize), u64>,
    steps: Cell<u64>,
}

impl<'s> Visits<'s> {
    /// The most visits on any path of up to `levels` levels into a value that `schema` is applied to.
    fn of(&mut self, schema: &'s Value, levels: usize) -> Result<u64, String> {
        let key = (std::ptr::from_ref(schema), levels);
        if let Some(visits) = self.known.get(&key) {
            return Ok(*visits);
        }
        let mut here = Vec::new();
        self.in_place(schema, &mut here)?;
        let mut children = Children::default();
        if levels > 0 {
            for members in &here {
                self.below(members, levels - 1, &mut children)?;
            }
        }
        let visits = here.len() as u64 + children.most();
        if visits > VISITS_MAX {
            return Err(format!("holds one path of a value against more than {VISITS_MAX} subschemas"));
        }
        self.known.insert(key, visits);
        Ok(visits)
    }

    /// Everything that is applied to the same value as `schema`.
    fn in_place(&self, schema: &'s Value, found: &mut Vec<&'s Map<String, Value>>) -> Result<(), String> {
        let Value::Object(members) = schema else {
            return Ok(());
        };
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS_MAX {
            return Err("is too entangled: its parts refer to each other too often".to_owned());
        }
        if found.len() as u64 >= VISITS_MAX {
            return Err(format!("applies more than {VISITS_MAX} subschemas to one value, or refers to itself there"));
        }
        found.push(members);
        for (keyword, value) in members {
            match (keyword.as_str(), value) {
                ("$ref", Value::String(to)) => {
                    let target = self.root.pointer(to.trim_start_matches('#'));
                    self.in_place(target.ok_or_else(|| format!("`{to}` leads nowhere"))?, found)?;
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                    schemas.iter().try_for_each(|schema| self.in_place(schema, found))?;
                }
                ("not" | "if" | "then" | "else", schema) => self.in_place(schema, found)?,
                ("dependentSchemas" | "dependencies", Value::Object(schemas)) => {
                    schemas.values().try_for_each(|schema| self.in_place(schema, found))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn below(&mut self, members: &'s Map<String, Value>, levels: usize, to: &mut Children<'s>) -> Result<(), String> {
        for (keyword, value) in members {
            match (keyword.as_str(), value) {
                ("properties", Value::Object(schemas)) => {
                    for (name, schema) in schemas {
                        *to.properties.entry(name).or_default() += self.of(schema, levels)?;
                    }
                }
                ("patternProperties", Value::Object(schemas)) => {
                    for schema in schemas.values() {
                        to.every_property += self.of(schema, levels)?;
                    }
                }
                ("additionalProperties" | "unevaluatedProperties" | "propertyNames", schema) => {
                    to.every_property += self.of(schema, levels)?;
                }
                ("prefixItems" | "items", Value::Array(schemas)) => {
                    for (n, schema) in schemas.iter().enumerate() {
                        *to.items.entry(n).or_default() += self.of(schema, levels)?;
                    }
                }
                ("items" | "contains" | "additionalItems" | "unevaluatedItems", schema) => {
                    to.every_item += self.of(schema, levels)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Visits below the children of one value.
#[derive(Default)]
struct Children<'s> {
    properties: HashMap<&'s String, u64>,
    every_property: u64,
    items: HashMap<usize, u64>,
    every_item: u64,
}

impl Children<'_> {
    /// A value is an object or an array, never both.
    fn most(&self) -> u64 {
        let of = |each: Option<&u64>, every: u64| each.copied().unwrap_or_default() + every;
        of(self.properties.values().max(), self.every_property).max(of(self.items.values().max(), self.every_item))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let doubling = json!({"items": {"$ref": "#"}, "allOf": [{"items": {"$ref": "#"}}]});
        assert!(refused(&doubling).contains("one path of a value"), "{}", refused(&doubling));
        let bomb: Map<String, Value> = (0..30)
            .map(|n| (format!("d{n}"), json!({"allOf": [{"$ref": format!("#/$defs/d{}", n + 1)}, {"$ref": format!("#/$defs/d{}", n + 1)}]})))
            .chain([("d30".to_owned(), json!({}))])
            .collect();
        assert!(refused(&json!({"$defs": bomb, "$ref": "#/$defs/d0"})).contains("more than 1000 subschemas"));
        assert!(refused(&json!({"pattern": "(a)\\1"})).contains("pattern"));
        assert!(refused(&json!({"description": "x".repeat(SCHEMA_MAX_BYTES)})).contains("the limit is 65536 bytes"));
        let deep = (0..40).fold(json!({}), |inner, _| json!({"not": inner}));
        assert!(refused(&deep).contains("levels deep"));
    }

    #[test]
    fn patterns_run_in_linear_time() {
        let schema = Schema::compile(&json!({"pattern": "^(a+)+$"})).expect("sound");
        let value = Value::String("a".repeat(100_000) + "!");
        assert_eq!(schema.faults(&value, "").len(), 1);
    }
}
