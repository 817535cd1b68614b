//! JSON Schemas of tools, from strangers: bounded before they are used, so that no value can make them costly.
//!
//! Nothing is ever fetched, a `$ref` stays inside its schema, patterns run in linear time, and the work that a value
//! can cause is known beforehand: from the schema alone where that is enough, else by counting for each value.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;

use jsonschema::{PatternOptions, Validator};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::model::journal::json_size_bytes;
use crate::model::reader::{Fault, JSON_DEPTH_MAX};

/// Longest schema, in bytes of JSON text.
const SCHEMA_MAX_BYTES: usize = 64 * 1024;

/// Deepest nesting inside one schema.
const SCHEMA_DEPTH_MAX: usize = 32;

/// Most subschemas that one place of a value is held against, and most on any path into any value of a schema whose
/// values need not be counted.
const VISITS_MAX: u64 = 1_000;

/// Most subschemas that all places of one value together are held against, where that is counted.
const VALUE_VISITS_MAX: u64 = 1_000_000;

/// Most steps that a count itself may take.
const STEPS_MAX: u64 = 1_000_000;

/// Memory for one compiled pattern, in bytes.
const PATTERN_MAX_BYTES: usize = 256 * 1024;

/// Most faults that are told of one value.
const FAULTS_MAX: usize = 32;

/// A schema that values can be held against.
pub(super) struct Schema {
    validator: Validator,
    /// The schema, where some value could make it costly: each value is counted first.
    costly: Option<Value>,
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
        refuse_references(schema, "", SCHEMA_DEPTH_MAX)?;
        let costly = match Count::new(schema).of_paths(schema, JSON_DEPTH_MAX) {
            Ok(_) => None,
            Err(Trouble::Costly) => Some(schema.clone()),
            Err(Trouble::Wrong(message)) => return Err(message),
        };
        let patterns = PatternOptions::regex().size_limit(PATTERN_MAX_BYTES).dfa_size_limit(PATTERN_MAX_BYTES);
        let options = jsonschema::options().offline().with_pattern_options(patterns);
        let wrong = |error: jsonschema::ValidationError<'_>| {
            let at = error.instance_path().to_string();
            let rule = if at.ends_with("/pattern") {
                " that runs in linear time (no look-around, no back references)"
            } else {
                ""
            };
            format!("{at}: {error}{rule}")
        };
        Ok(Self { validator: options.build(schema).map_err(wrong)?, costly })
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

/// Why a count came to no end.
#[derive(Debug)]
enum Trouble {
    /// The schema is not one.
    Wrong(String),
    /// There is too much to count.
    Costly,
}

/// A child that a subschema says something about.
enum Child<'s> {
    Property(&'s str),
    EveryProperty,
    Item(usize),
    EveryItem,
}

/// Counts the subschemas that the places of a value are held against.
///
/// At one place these are the schema and all that it applies there (`allOf`, `$ref`, ...). Each of them may say
/// something about a child, and what they say adds up for the same child.
struct Count<'s> {
    root: &'s Value,
    /// By schema, and by level or value.
    known: HashMap<(*const Value, usize), u64>,
    steps: Cell<u64>,
}

impl<'s> Count<'s> {
    fn new(root: &'s Value) -> Self {
        Self { root, known: HashMap::new(), steps: Cell::new(0) }
    }

    /// The most visits on any path of up to `levels` levels into any value.
    fn of_paths(&mut self, schema: &'s Value, levels: usize) -> Result<u64, Trouble> {
        let key = (std::ptr::from_ref(schema), levels);
        if let Some(visits) = self.known.get(&key) {
            return Ok(*visits);
        }
        let here = self.in_place(schema)?;
        let (mut properties, mut every_property) = (HashMap::<&str, u64>::new(), 0);
        let (mut items, mut every_item) = (HashMap::<usize, u64>::new(), 0);
        if levels > 0 {
            for (child, schema) in here.iter().flat_map(|members| children(members)) {
                let below = self.of_paths(schema, levels - 1)?;
                match child {
                    Child::Property(name) => *properties.entry(name).or_default() += below,
                    Child::EveryProperty => every_property += below,
                    Child::Item(n) => *items.entry(n).or_default() += below,
                    Child::EveryItem => every_item += below,
                }
            }
        }
        // A value is an object or an array, never both; and a path goes through one of its children.
        let in_object = properties.into_values().max().unwrap_or_default() + every_property;
        let in_array = items.into_values().max().unwrap_or_default() + every_item;
        let visits = here.len() as u64 + in_object.max(in_array);
        self.keep(key, visits, VISITS_MAX)
    }

    /// The visits of all places of `value`.
    fn of_value(&mut self, schema: &'s Value, value: &Value) -> Result<u64, Trouble> {
        let key = (std::ptr::from_ref(schema), std::ptr::from_ref(value).addr());
        if let Some(visits) = self.known.get(&key) {
            return Ok(*visits);
        }
        let here = self.in_place(schema)?;
        let mut visits = here.len() as u64;
        for (child, schema) in here.iter().flat_map(|members| children(members)) {
            let held: Vec<&Value> = match (child, value) {
                (Child::Property(name), Value::Object(members)) => members.get(name).into_iter().collect(),
                (Child::EveryProperty, Value::Object(members)) => members.values().collect(),
                (Child::Item(n), Value::Array(items)) => items.get(n).into_iter().collect(),
                (Child::EveryItem, Value::Array(items)) => items.iter().collect(),
                _ => Vec::new(),
            };
            for value in held {
                visits = visits.saturating_add(self.of_value(schema, value)?);
            }
        }
        self.keep(key, visits, VALUE_VISITS_MAX)
    }

    fn keep(&mut self, key: (*const Value, usize), visits: u64, most: u64) -> Result<u64, Trouble> {
        if visits > most {
            return Err(Trouble::Costly);
        }
        self.known.insert(key, visits);
        Ok(visits)
    }

    /// Everything that is applied to the same value as `schema`.
    fn in_place(&self, schema: &'s Value) -> Result<Vec<&'s Map<String, Value>>, Trouble> {
        let (mut found, mut open) = (Vec::new(), vec![schema]);
        while let Some(schema) = open.pop() {
            let Value::Object(members) = schema else { continue };
            found.push(members);
            self.steps.set(self.steps.get() + 1);
            if self.steps.get() > STEPS_MAX {
                return Err(Trouble::Costly);
            }
            if found.len() as u64 > VISITS_MAX {
                let message = "subschemas to one value, or refers to itself there";
                return Err(Trouble::Wrong(format!("applies more than {VISITS_MAX} {message}")));
            }
            for (keyword, value) in members {
                match (keyword.as_str(), value) {
                    ("$ref", Value::String(to)) => open.push(self.target(to)?),
                    ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => open.extend(schemas),
                    ("not" | "if" | "then" | "else", schema) => open.push(schema),
                    ("dependentSchemas" | "dependencies", Value::Object(schemas)) => open.extend(schemas.values()),
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// What a reference such as `#/$defs/a%20name` leads to: a JSON Pointer in a fragment (RFC 6901 section 6).
    fn target(&self, reference: &str) -> Result<&'s Value, Trouble> {
        let pointer = percent_decode_str(reference.trim_start_matches('#')).decode_utf8().unwrap_or(Cow::Borrowed("?"));
        self.root.pointer(&pointer).ok_or_else(|| Trouble::Wrong(format!("`{reference}` leads nowhere")))
    }
}

/// What the keywords of one subschema say about the children of a value.
fn children(members: &Map<String, Value>) -> Vec<(Child<'_>, &Value)> {
    let mut children = Vec::new();
    for (keyword, value) in members {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(schemas)) => {
                children.extend(schemas.iter().map(|(name, schema)| (Child::Property(name), schema)));
            }
            ("patternProperties", Value::Object(schemas)) => {
                children.extend(schemas.values().map(|schema| (Child::EveryProperty, schema)));
            }
            ("additionalProperties" | "unevaluatedProperties" | "propertyNames", schema) => {
                children.push((Child::EveryProperty, schema));
            }
            ("prefixItems" | "items", Value::Array(schemas)) => {
                children.extend(schemas.iter().enumerate().map(|(n, schema)| (Child::Item(n), schema)));
            }
            ("items" | "contains" | "additionalItems" | "unevaluatedItems", schema) => {
                children.push((Child::EveryItem, schema));
            }
            _ => {}
        }
    }
    children
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
