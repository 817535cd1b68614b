//! A validated definition: names unique, references backwards, limits kept. There is no other way to get one than
//! [`Definition::parse`], which reports all faults of a document at once.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use super::expression::{Expression, Place};
use super::journal::json_size_bytes;
use super::limits::Limits;
use super::path::{StepPath, step_name_fault};
use super::reader::{Fault, Faults, Members, join, kind_of};
use super::retry::RetryPolicy;
use super::step::StepKind;

/// The version of the definition language.
pub const VERSION: &str = "1.0";

/// `timeout_seconds` of a step that does not say.
pub const STEP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Shortest time that a definition can name.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// What a run executes.
#[derive(Debug)]
pub struct Definition {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Longest time of a run; `None` is the server's limit.
    pub timeout: Option<Duration>,
    /// Which runs are begun first when more wait than can be executed.
    pub priority: Priority,
}

/// Which runs are begun first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Before all others.
    High,
    /// What a definition has that does not say.
    #[default]
    Normal,
    /// After all others.
    Low,
}

impl Priority {
    /// All, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// As definitions name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// What a valid definition says.
    #[must_use]
    pub fn of(doc: &Value) -> Self {
        let said = doc.get("priority").and_then(Value::as_str);
        Self::ALL.into_iter().find(|priority| said == Some(priority.as_str())).unwrap_or_default()
    }
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// Its address.
    pub path: StepPath,
    /// Its name: `step_<index>` unless given.
    pub name: String,
    /// The step is skipped when this is false.
    pub condition: Option<Expression>,
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// How failures that may pass are tried again.
    pub retry: RetryPolicy,
    /// What to do when a crash interrupted an attempt.
    pub on_interrupt: OnInterrupt,
    /// What it does.
    pub kind: StepKind,
}

/// What to do with a step whose attempt was interrupted: its effect may or may not have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Perform it again, under the same idempotency key.
    Retry,
    /// Fail the step; the note that its attempt begins is on disk before it does.
    Fail,
}

impl Definition {
    /// Parses a definition.
    ///
    /// # Errors
    /// All faults of the document, with JSON pointers into it.
    pub fn parse(doc: &Value, limits: &Limits) -> Result<Self, Vec<Fault>> {
        let faults = Faults::default();
        let parsed = Self::read(doc, limits, &faults);
        let faults = faults.into_vec();
        match parsed {
            Some(definition) if faults.is_empty() => Ok(definition),
            _ => Err(faults),
        }
    }

    fn read(doc: &Value, limits: &Limits, faults: &Faults) -> Option<Self> {
        let size = json_size_bytes(doc);
        if size > limits.definition_max_bytes {
            faults.add("", format!("is {size} bytes long; the limit is {} bytes", limits.definition_max_bytes));
            return None;
        }
        let mut members = Members::of(doc, "", faults)?;
        if let Some(version) = members.take("version")
            && version != VERSION
        {
            members.fault("version", format!("must be \"{VERSION}\", not {version}"));
        }
        let timeout = members.seconds("timeout_seconds", SHORTEST, limits.run_timeout_max);
        if let Some(priority) = members.take("priority")
            && !Priority::ALL.iter().any(|known| priority == known.as_str())
        {
            members.fault("priority", "must be \"high\", \"normal\" or \"low\"");
        }
        let items = members.require("steps").and_then(|value| members.array("steps", value));
        members.finish();
        let items = items?;
        if items.len() > limits.steps_max {
            faults.add("/steps", format!("has {} steps; the limit is {}", items.len(), limits.steps_max));
            return None;
        }
        Some(Self { steps: read_steps(items, limits, faults), timeout, priority: Priority::of(doc) })
    }

    /// Position of the step at `path`.
    #[must_use]
    pub fn index_of(&self, path: &StepPath) -> Option<usize> {
        self.steps.iter().position(|step| step.path == *path)
    }
}

fn read_steps(items: &[Value], limits: &Limits, faults: &Faults) -> Vec<Step> {
    let mut earlier = HashSet::new();
    let mut steps = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let pointer = join("/steps", &index.to_string());
        let name = step_name(item, index);
        steps.extend(read_step(item, name.clone(), &pointer, &earlier, limits, faults));
        if !earlier.insert(name.clone()) {
            let place = if item.get("name").is_some() { join(&pointer, "name") } else { pointer };
            faults.add(&place, format!("`{name}` names an earlier step already"));
        }
    }
    steps
}

fn step_name(item: &Value, index: usize) -> String {
    item.get("name").and_then(Value::as_str).map_or_else(|| format!("step_{index}"), str::to_owned)
}

fn read_step(
    item: &Value,
    name: String,
    pointer: &str,
    earlier: &HashSet<String>,
    limits: &Limits,
    faults: &Faults,
) -> Option<Step> {
    let mut members = Members::of(item, pointer, faults)?;
    let expressions = Cell::new(0);
    let place = Place { pointer: pointer.to_owned(), earlier, faults, expressions: &expressions, secrets: None };
    if let Some(value) = members.take("name")
        && let Some(name) = members.string("name", value)
        && let Some(message) = step_name_fault(name)
    {
        members.fault("name", message);
    }
    let timeout = members.seconds("timeout_seconds", SHORTEST, limits.step_timeout_max);
    let retry = members.take("retry").map(|value| read_retry(value, &members.pointer("retry"), limits, faults));
    let condition = members.take("if").map(|value| read_condition(value, &place.at(members.pointer("if"))));
    let on_interrupt = members.take("on_interrupt").map(|value| match value.as_str() {
        Some("retry") => Some(OnInterrupt::Retry),
        Some("fail") => Some(OnInterrupt::Fail),
        _ => {
            members.fault("on_interrupt", "must be `retry` or `fail`");
            None
        }
    });
    let kind_name = members.require("type").and_then(|value| members.string("type", value));
    let kind = kind_name.and_then(|kind| StepKind::parse(kind, &mut members, &place, limits));
    if kind_name.is_some_and(|kind| StepKind::NAMES.contains(&kind)) {
        // Without a known type nobody can say which members belong to it.
        members.finish();
    }
    Some(Step {
        path: StepPath::top(&name),
        name,
        condition: match condition {
            None => None,
            Some(condition) => Some(condition?),
        },
        timeout: timeout.unwrap_or(STEP_TIMEOUT_DEFAULT),
        retry: match retry {
            None => RetryPolicy::default(),
            Some(retry) => retry?,
        },
        on_interrupt: match on_interrupt {
            None => OnInterrupt::Retry,
            Some(on_interrupt) => on_interrupt?,
        },
        kind: kind?,
    })
}

/// `if` is one expression, with or without its braces.
fn read_condition(value: &Value, place: &Place<'_>) -> Option<Expression> {
    let Some(text) = value.as_str() else {
        place.faults.add(&place.pointer, format!("must be a string with one expression, not {}", kind_of(value)));
        return None;
    };
    let text = text.trim();
    let inner = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    Expression::parse(inner.unwrap_or(text), place)
}

fn read_retry(value: &Value, pointer: &str, limits: &Limits, faults: &Faults) -> Option<RetryPolicy> {
    let mut members = Members::of(value, pointer, faults)?;
    let defaults = RetryPolicy::default();
    let longest = Duration::from_secs(86_400);
    let policy = RetryPolicy {
        max_attempts: members.integer("max_attempts", 1, limits.attempts_max).unwrap_or(defaults.max_attempts),
        initial_delay: members
            .seconds("initial_delay_seconds", Duration::ZERO, longest)
            .unwrap_or(defaults.initial_delay),
        max_delay: members.seconds("max_delay_seconds", Duration::ZERO, longest).unwrap_or(defaults.max_delay),
        multiplier: members.number("multiplier", 1.0, 100.0).unwrap_or(defaults.multiplier),
    };
    members.finish();
    Some(policy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(doc: &Value) -> Vec<String> {
        let faults = Definition::parse(doc, &Limits::default()).expect_err("faulty");
        faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_definition_of_the_original_is_accepted_with_its_defaults() {
        let doc = json!({"version": "1.0", "steps": [
            {"type": "http", "method": "GET", "url": "https://example.com/"},
            {"type": "persist_snapshot", "include_keys": ["step_0"]},
        ]});
        let def = Definition::parse(&doc, &Limits::default()).expect("sound");
        assert_eq!(def.steps[0].name, "step_0");
        assert_eq!(def.steps[0].timeout, Duration::from_secs(30));
        Definition::parse(&json!({"steps": []}), &Limits::default()).expect("no steps is a definition too");
    }

    #[test]
    fn all_faults_are_reported_at_once_where_they_are() {
        let doc = json!({"version": "2", "stepz": 1, "steps": [
            {"type": "http", "url": "ftp://x", "timeout_second": 3, "method": "FETCH", "headers": {"a b": "x"}},
            {"type": "persist_snapshot", "include_keys": ["later", 3]},
            {"type": "wait"},
            {"name": "step_0", "type": "http", "url": "{{ steps.later.result }}", "json": 1, "body": "x"},
            {"name": "later", "type": "http", "url": "http://x", "retry": {"max_attempts": 0, "oops": 1}, "if": "1 +"},
            17,
        ]});
        assert_eq!(
            pointers(&doc),
            [
                "/version",
                "/stepz",
                "/steps/0/method",
                "/steps/0/url",
                "/steps/0/headers/a b",
                "/steps/0/timeout_second",
                "/steps/1/include_keys/0",
                "/steps/1/include_keys/1",
                "/steps/2/type",
                "/steps/3/url",
                "/steps/3",
                "/steps/3/name",
                "/steps/4/retry/max_attempts",
                "/steps/4/retry/oops",
                "/steps/4/if",
                "/steps/5",
            ]
        );
    }

    #[test]
    fn a_misspelt_member_is_refused() {
        let doc = json!({"steps": [{"type": "http", "url": "http://x/", "timeout_second": 3}]});
        assert_eq!(pointers(&doc), ["/steps/0/timeout_second"]);
    }

    #[test]
    fn limits_are_named() {
        let limits = Limits { steps_max: 1, ..Limits::default() };
        let step = json!({"type": "persist_snapshot"});
        let faults = Definition::parse(&json!({"steps": [step, step]}), &limits).expect_err("too many");
        assert_eq!(faults[0].message, "has 2 steps; the limit is 1");
    }
}
