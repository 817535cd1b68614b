//! Reads the documents that say what a plugin asks for and is granted: JSON from strangers and from people. Collects
//! every fault with its place. Never decides what may be reached.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Something in a document that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Where: an RFC 6901 JSON pointer; empty for the document itself.
    pub pointer: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Flaw {
    /// As TOML names the place, too: `http[0].host`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = String::new();
        for token in self.pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit()) {
                key += &format!("[{token}]");
            } else {
                key += if key.is_empty() { "" } else { "." };
                key += &token;
            }
        }
        if key.is_empty() { f.write_str(&self.message) } else { write!(f, "`{key}` {}", self.message) }
    }
}

/// The flaws found so far.
#[derive(Default)]
pub(super) struct Flaws(RefCell<Vec<Flaw>>);

impl Flaws {
    fn add(&self, pointer: &str, message: impl Into<String>) {
        self.0.borrow_mut().push(Flaw { pointer: pointer.to_owned(), message: message.into() });
    }

    /// What was read, if nothing was wrong.
    pub(super) fn settle<T>(self, read: Option<T>) -> Result<T, Vec<Flaw>> {
        let flaws = self.0.into_inner();
        read.filter(|_| flaws.is_empty()).ok_or(flaws)
    }
}

/// Reads JSON, and tells of every member that stands in its object twice. (The last one is in the value.)
///
/// # Errors
/// When it is no JSON.
pub fn read_json(json: &[u8]) -> Result<(Value, Vec<Flaw>), serde_json::Error> {
    let flaws = Flaws::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Tree { pointer: String::new(), flaws: &flaws }.deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, flaws.0.into_inner()))
}

fn join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

/// A value that is being read.
struct Tree<'f> {
    pointer: String,
    flaws: &'f Flaws,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        let seed = |n: usize| Tree { pointer: format!("{}/{n}", self.pointer), flaws: self.flaws };
        while let Some(item) = items.next_element_seed(seed(read.len()))? {
            read.push(item);
        }
        Ok(read.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let pointer = join(&self.pointer, &name);
            if read.contains_key(&name) {
                self.flaws.add(&pointer, "is there twice");
            }
            let value = members.next_value_seed(Tree { pointer, flaws: self.flaws })?;
            read.insert(name, value);
        }
        Ok(read.into())
    }
}

/// A value, and where it stands.
pub(super) struct At<'a> {
    value: &'a Value,
    pointer: String,
    flaws: &'a Flaws,
}

impl<'a> At<'a> {
    /// The document itself.
    pub(super) fn top(value: &'a Value, flaws: &'a Flaws) -> Self {
        Self { value, pointer: String::new(), flaws }
    }

    /// Notes that it is not as it must be.
    pub(super) fn flaw(&self, message: impl Into<String>) {
        self.flaws.add(&self.pointer, message);
    }

    fn must_be(&self, what: &str) {
        let kind = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        self.flaw(format!("must be {what}, not {kind}"));
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.must_be("a string");
        }
        text
    }

    /// Text that `read` makes something of.
    pub(super) fn parsed<T, E: fmt::Display>(&self, read: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        read(self.text()?).map_err(|error| self.flaw(error.to_string())).ok()
    }

    pub(super) fn number(&self, min: u64, max: u64) -> Option<u64> {
        let number = self.value.as_u64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            let upper = if max == u64::MAX { "up".to_owned() } else { format!("to {max}") };
            self.flaw(format!("must be a whole number from {min} {upper}"));
        }
        number
    }

    /// Every item of an array of up to `most`, as `read` sees it.
    pub(super) fn list<T>(&self, most: usize, read: impl Fn(&At<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Array(items) = self.value else {
            self.must_be("an array");
            return None;
        };
        if items.len() > most {
            self.flaw(format!("has {} entries, more than {most}", items.len()));
            return None;
        }
        // All of them are looked at, also behind one that is wrong.
        let at = |(n, value)| Self { value, pointer: format!("{}/{n}", self.pointer), flaws: self.flaws };
        let read: Vec<_> = items.iter().enumerate().map(|item| read(&at(item))).collect();
        read.into_iter().collect()
    }

    /// Texts of which none is there twice.
    pub(super) fn set(&self, most: usize, fault: impl Fn(&str) -> Option<String>) -> Option<BTreeSet<String>> {
        let seen = RefCell::new(BTreeSet::new());
        let each = |at: &At<'a>| {
            let text = at.text()?;
            let twice = || (!seen.borrow_mut().insert(text.to_owned())).then(|| format!("`{text}` is there twice"));
            fault(text).or_else(twice).map_or(Some(()), |message| {
                at.flaw(message);
                None
            })
        };
        self.list(most, each)?;
        Some(seen.into_inner())
    }

    /// Every member of an object whose names nobody knows before.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, At<'a>)>> {
        let Value::Object(map) = self.value else {
            self.must_be("an object");
            return None;
        };
        let at = |name: &str, value| Self { value, pointer: join(&self.pointer, name), flaws: self.flaws };
        Some(map.iter().map(|(name, value)| (name.as_str(), at(name, value))).collect())
    }

    /// The members of an object.
    pub(super) fn members(&self) -> Option<Members<'a>> {
        let entries = self.entries()?;
        Some(Members { entries, pointer: self.pointer.clone(), known: Vec::new(), flaws: self.flaws })
    }
}

/// The members of an object, which are taken one by one.
pub(super) struct Members<'a> {
    entries: Vec<(&'a str, At<'a>)>,
    pointer: String,
    known: Vec<&'static str>,
    flaws: &'a Flaws,
}

impl<'a> Members<'a> {
    /// The member `name` as `read` sees it. Where it is absent or null: `Some(None)`; where it is wrong: `None`.
    pub(super) fn take<T>(&mut self, name: &'static str, read: impl FnOnce(&At<'a>) -> Option<T>) -> Option<Option<T>> {
        self.known.push(name);
        match self.entries.iter().find(|(known, at)| *known == name && !at.value.is_null()) {
            Some((_, at)) => read(at).map(Some),
            None => Some(None),
        }
    }

    /// The member `name`, which must be there.
    pub(super) fn require<T>(&mut self, name: &'static str, read: impl FnOnce(&At<'a>) -> Option<T>) -> Option<T> {
        let taken = self.take(name, read)?;
        if taken.is_none() {
            self.flaws.add(&self.pointer, format!("`{name}` is missing"));
        }
        taken
    }

    /// Notes every member that nobody took.
    pub(super) fn finish(self) {
        for (name, at) in self.entries.iter().filter(|(name, _)| !self.known.contains(name)) {
            at.flaw(format!("unknown member `{name}`; known here: {}", self.known.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_read_and_a_member_that_is_there_twice_is_told_with_its_place() {
        let text = r#" {"a": [1, -2, 0.5, "x", true, null], "b~/c": {"d": 1, "d": [{"e": 1, "e": 2}]}, "a": {}} "#;
        let (value, flaws) = read_json(text.as_bytes()).expect("JSON");
        assert_eq!(value, json!({"a": {}, "b~/c": {"d": [{"e": 2}]}}));
        let told: Vec<_> = flaws.iter().map(|flaw| (flaw.pointer.as_str(), flaw.to_string())).collect();
        assert_eq!(
            told,
            [
                ("/b~0~1c/d", "`b~/c.d` is there twice".to_owned()),
                ("/b~0~1c/d/0/e", "`b~/c.d[0].e` is there twice".to_owned()),
                ("/a", "`a` is there twice".to_owned()),
            ]
        );
        for bad in ["", "{", "{} {}", "[1,]", "nul"] {
            assert!(read_json(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(Flaw { pointer: String::new(), message: "is wrong".to_owned() }.to_string(), "is wrong");
    }
}
