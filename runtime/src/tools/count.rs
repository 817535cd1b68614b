//! How much work a schema can make of a value, counted before a validator does it: the subschemas that the places of the
//! value are held against. `docs/adr/0009` says what is counted, and why.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Most subschemas that one place of a value is held against, and most on any path into any value of a schema whose
/// values need not be counted.
const VISITS_MAX: u64 = 1_000;

/// Most subschemas that all places of one value together are held against, where that is counted.
pub(super) const VALUE_VISITS_MAX: u64 = 1_000_000;

/// Most steps that a count itself may take.
const STEPS_MAX: u64 = 1_000_000;

/// Most nested `unevaluatedProperties` and `unevaluatedItems` at one place: a validator goes through the place again for
/// each.
const UNEVALUATED_MAX: usize = 3;

/// Why a count came to no end.
#[derive(Debug)]
pub(super) enum Trouble {
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
pub(super) struct Count<'s> {
    root: &'s Value,
    /// By schema, and by level or value.
    known: HashMap<(*const Value, usize), u64>,
    steps: Cell<u64>,
}

impl<'s> Count<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        Self { root, known: HashMap::new(), steps: Cell::new(0) }
    }

    /// The most visits on any path of up to `levels` levels into any value.
    pub(super) fn of_paths(&mut self, schema: &'s Value, levels: usize) -> Result<u64, Trouble> {
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
    pub(super) fn of_value(&mut self, schema: &'s Value, value: &Value) -> Result<u64, Trouble> {
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
        let (mut found, mut open, mut unevaluated) = (Vec::new(), vec![schema], 0);
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
                unevaluated += usize::from(keyword.starts_with("unevaluated"));
                if unevaluated > UNEVALUATED_MAX {
                    let message = "`unevaluatedProperties` or `unevaluatedItems` to one value";
                    return Err(Trouble::Wrong(format!("applies more than {UNEVALUATED_MAX} {message}")));
                }
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
