//! Reads a JSON document that may be nonsense and collects **all** its faults, each with its JSON pointer.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::{Map, Value};

/// One fault of a document.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where it is: an RFC 6901 JSON pointer into the document; empty for the document itself.
    pub pointer: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// The faults found so far. Shared by reference while a document is read.
#[derive(Default)]
pub struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Notes a fault at `pointer`.
    pub fn add(&self, pointer: &str, message: impl Into<String>) {
        self.0.borrow_mut().push(Fault { pointer: pointer.to_owned(), message: message.into() });
    }

    /// All faults, in the order in which they were found.
    #[must_use]
    pub fn into_vec(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// `pointer` extended by one token, escaped as RFC 6901 section 3 says.
#[must_use]
pub fn join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

/// Deepest nesting of JSON that is taken in. What is stored adds a few levels, and readers give up at 128.
pub const JSON_DEPTH_MAX: usize = 64;

/// Whether arrays and objects in `value` stand in one another at most [`JSON_DEPTH_MAX`] deep.
#[must_use]
pub fn depth_fits(value: &Value) -> bool {
    fn within(value: &Value, left: usize) -> bool {
        match value {
            Value::Array(items) => left > 0 && items.iter().all(|item| within(item, left - 1)),
            Value::Object(members) => left > 0 && members.values().all(|member| within(member, left - 1)),
            _ => true,
        }
    }
    within(value, JSON_DEPTH_MAX)
}

/// What a JSON value is, for messages.
#[must_use]
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The members of one object, taken one by one; what is left at the end is unknown and a fault.
pub struct Members<'a> {
    map: &'a Map<String, Value>,
    pointer: String,
    known: Vec<&'static str>,
    faults: &'a Faults,
}

impl<'a> Members<'a> {
    /// Reads `value`, which stands at `pointer`, as an object.
    pub fn of(value: &'a Value, pointer: &str, faults: &'a Faults) -> Option<Self> {
        let Value::Object(map) = value else {
            faults.add(pointer, format!("must be an object, not {}", kind_of(value)));
            return None;
        };
        Some(Self { map, pointer: pointer.to_owned(), known: Vec::new(), faults })
    }

    /// The pointer of the member `name`.
    #[must_use]
    pub fn pointer(&self, name: &str) -> String {
        join(&self.pointer, name)
    }

    /// Notes a fault of the member `name`.
    pub fn fault(&self, name: &str, message: impl Into<String>) {
        self.faults.add(&self.pointer(name), message);
    }

    /// The member `name`; null counts as absent.
    pub fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Like [`Members::take`], but null is a value.
    pub fn take_nullable(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.map.get(name)
    }

    /// The member `name`, which must be there.
    pub fn require(&mut self, name: &'static str) -> Option<&'a Value> {
        let value = self.take(name);
        if value.is_none() {
            self.faults.add(&self.pointer, format!("`{name}` is missing"));
        }
        value
    }

    /// `value` of the member `name` as a string.
    pub fn string(&self, name: &str, value: &'a Value) -> Option<&'a str> {
        let text = value.as_str();
        if text.is_none() {
            self.fault(name, format!("must be a string, not {}", kind_of(value)));
        }
        text
    }

    /// `value` of the member `name` as an array.
    pub fn array(&self, name: &str, value: &'a Value) -> Option<&'a Vec<Value>> {
        let items = value.as_array();
        if items.is_none() {
            self.fault(name, format!("must be an array, not {}", kind_of(value)));
        }
        items
    }

    /// The member `name` as a whole number from `min` to `max`.
    pub fn integer(&mut self, name: &'static str, min: u32, max: u32) -> Option<u32> {
        let value = self.take(name)?;
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n));
        if number.is_none() {
            self.fault(name, format!("must be a whole number from {min} to {max}"));
        }
        number
    }

    /// The member `name` as a number from `min` to `max`.
    pub fn number(&mut self, name: &'static str, min: f64, max: f64) -> Option<f64> {
        let value = self.take(name)?;
        let number = value.as_f64().filter(|n| (min..=max).contains(n));
        if number.is_none() {
            self.fault(name, format!("must be a number from {min} to {max}"));
        }
        number
    }

    /// The member `name` as a duration in seconds, fractions allowed, from `min` to `max`.
    pub fn seconds(&mut self, name: &'static str, min: Duration, max: Duration) -> Option<Duration> {
        self.number(name, min.as_secs_f64(), max.as_secs_f64()).map(Duration::from_secs_f64)
    }

    /// Notes a fault for every member that nobody asked for.
    pub fn finish(self) {
        for name in self.map.keys().filter(|name| !self.known.contains(&name.as_str())) {
            let known = self.known.join(", ");
            self.faults.add(&self.pointer(name), format!("unknown member `{name}`; known here: {known}"));
        }
    }
}
