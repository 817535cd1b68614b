//! One `{{ expression }}`.
//!
//! Expressions are MiniJinja's: no statements, no loaders, strict undefined, a fuel limit and bounded output. What
//! they see comes from the run's row, its revision and its journal, so evaluating again gives the same value.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use minijinja::value::ValueKind;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value;

use super::journal::{json_fits, json_size_bytes};
use super::limits::{EXPRESSION_FUEL, EXPRESSION_MAX_BYTES, EXPRESSION_OUTPUT_MAX_BYTES, EXPRESSIONS_MAX};
use super::reader::{Faults, join};

/// The names at the root of every expression.
pub const ROOTS: [&str; 4] = ["trigger", "steps", "run", "workflow"];

/// The root that only some places have: `secrets.name` is a text that stands for the secret, and
/// nothing is computed with it.
const SECRETS: &str = "secrets";

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(EXPRESSION_FUEL));
    environment.set_debug(false);
    environment.remove_global("debug");
    environment
});

/// One compiled expression.
#[derive(Debug)]
pub struct Expression {
    compiled: minijinja::Expression<'static, 'static>,
    source: String,
    /// The roots it reads, so that only these are built for it.
    roots: HashSet<String>,
    /// The secret that it is, and nothing besides.
    secret: Option<String>,
}

/// What expressions can see: each root is built only when an expression asks for it.
pub trait Scope {
    /// The value of a root (one of [`ROOTS`]).
    fn root(&self, name: &str) -> minijinja::Value;

    /// What stands for the secret called `name` until the request leaves.
    fn secret(&self, name: &str) -> String;

    /// Notes that an expression has made a value of so many bytes.
    ///
    /// # Errors
    /// When the values together are too large.
    fn charge(&self, bytes: usize) -> Result<(), String>;
}

/// Where a value stands, for checking it when the definition is saved.
pub struct Place<'a> {
    /// JSON pointer of the value.
    pub pointer: String,
    /// Names of the steps that come before this one.
    pub earlier: &'a HashSet<String>,
    /// Where faults go.
    pub faults: &'a Faults,
    /// Counts the expressions of the step.
    pub expressions: &'a Cell<usize>,
    /// Where the names of secrets go; none: no secret may stand here.
    pub secrets: Option<&'a RefCell<BTreeSet<String>>>,
}

impl Place<'_> {
    pub(super) fn below(&self, token: &str) -> Self {
        self.at(join(&self.pointer, token))
    }

    /// Another place of the same step.
    #[must_use]
    pub fn at(&self, pointer: String) -> Self {
        Place { pointer, ..*self }
    }
}

impl Expression {
    /// Compiles `source` and checks that every root it mentions exists, and that every step it mentions as
    /// `steps.<name>` comes earlier. A step in brackets (`steps["a name"]`) is looked up when it is evaluated.
    pub fn parse(source: &str, place: &Place<'_>) -> Option<Self> {
        let source = source.trim();
        place.expressions.set(place.expressions.get() + 1);
        if place.expressions.get() == EXPRESSIONS_MAX + 1 {
            place
                .faults
                .add(&place.pointer, format!("a step may have {EXPRESSIONS_MAX} expressions, and this is one more"));
            return None;
        }
        if source.len() > EXPRESSION_MAX_BYTES {
            place.faults.add(
                &place.pointer,
                format!("an expression may have {EXPRESSION_MAX_BYTES} bytes, not {}", source.len()),
            );
            return None;
        }
        let compiled = match ENVIRONMENT.compile_expression_owned(source.to_owned()) {
            Ok(compiled) => compiled,
            Err(error) => {
                place.faults.add(&place.pointer, format!("`{source}` is not an expression: {}", describe(&error)));
                return None;
            }
        };
        let functions: HashSet<&str> = ENVIRONMENT.globals().map(|(name, _)| name).collect();
        let roots: HashSet<String> = compiled
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !functions.contains(name.as_str()))
            .collect();
        let mut sound = true;
        let mentioned = roots.contains(SECRETS) || mentions_secrets(source);
        let secret = secret_itself(source).map(str::to_owned);
        if mentioned {
            match (place.secrets, &secret) {
                (Some(named), Some(secret)) => {
                    named.borrow_mut().insert(secret.clone());
                }
                (Some(_), None) => {
                    let message = format!(
                        "a secret stands alone, `{{{{ secrets.name }}}}` or `{{{{ secrets[\"a-name\"] }}}}`, with any text \
                         around it: it is put in when the request leaves, so `{source}` cannot compute with it"
                    );
                    place.faults.add(&place.pointer, message);
                    sound = false;
                }
                (None, _) => {
                    let message = "a secret can stand in a header or in the query of an `http` step, nowhere else";
                    place.faults.add(&place.pointer, message);
                    sound = false;
                }
            }
        }
        for root in roots.iter().filter(|root| ![&ROOTS[..], &[SECRETS]].concat().contains(&root.as_str())) {
            place.faults.add(
                &place.pointer,
                format!("`{root}` is unknown in `{source}`; expressions see {}", ROOTS.join(", ")),
            );
            sound = false;
        }
        for name in compiled.undeclared_variables(true) {
            let Some(step) = name.strip_prefix("steps.").map(|rest| rest.split('.').next().unwrap_or(rest)) else {
                continue;
            };
            if !place.earlier.contains(step) {
                place.faults.add(&place.pointer, format!("no step named `{step}` comes before this one"));
                sound = false;
            }
        }
        sound.then(|| Self { compiled, source: source.to_owned(), roots, secret })
    }

    /// The name of the secret that the expression is, if it is one.
    #[must_use]
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// Evaluates the expression to JSON; the error text names the expression.
    pub fn eval(&self, scope: &dyn Scope) -> Result<Value, String> {
        if let Some(name) = &self.secret {
            let stands_for_it = Value::String(scope.secret(name));
            scope.charge(json_size_bytes(&stands_for_it))?;
            return Ok(stands_for_it);
        }
        let context = minijinja::Value::from_pairs(self.roots.iter().map(|root| (root.clone(), scope.root(root))));
        let value = self.compiled.eval(context).map_err(|error| format!("`{}`: {}", self.source, describe(&error)))?;
        if value.is_undefined() {
            return Err(format!("`{}` is undefined", self.source));
        }
        // Before anything is made of it: a repeated list is small until somebody looks at its items.
        if !json_fits(&value, EXPRESSION_OUTPUT_MAX_BYTES) {
            let most = EXPRESSION_OUTPUT_MAX_BYTES;
            return Err(format!("`{}` is not JSON of at most {most} bytes", self.source));
        }
        not_json(&value).map_or(Ok(()), |what| Err(format!("`{}` {what}", self.source)))?;
        let value = serde_json::to_value(&value).map_err(|error| format!("`{}` is not JSON: {error}", self.source))?;
        scope.charge(json_size_bytes(&value))?;
        Ok(value)
    }

    /// Evaluates the expression as a condition; only `true` and `false` are conditions.
    pub fn eval_condition(&self, scope: &dyn Scope) -> Result<bool, String> {
        match self.eval(scope)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(format!("`{}` must be true or false, not {}", self.source, super::reader::kind_of(&other))),
        }
    }
}

/// Whether the root of secrets stands in an expression: the compiler does not name it where a part is cut out of it
/// (`secrets.name[1:]`).
fn mentions_secrets(source: &str) -> bool {
    let (mut quote, mut escaped, mut word, mut member) = (None, false, String::new(), false);
    for c in source.chars().chain([' ']) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if q == c => quote = None,
            Some(_) => {}
            None if c.is_alphanumeric() || c == '_' => word.push(c),
            None => {
                if !member && word == SECRETS {
                    return true;
                }
                member = c == '.' || c.is_whitespace() && word.is_empty() && member;
                word.clear();
                quote = Some(c).filter(|c| matches!(c, '"' | '\''));
            }
        }
    }
    false
}

/// The name of the secret that an expression is: `secrets.name`, or `secrets["a-name"]` for a name with `-` or a dot.
fn secret_itself(source: &str) -> Option<&str> {
    let rest = source.strip_prefix(SECRETS)?.trim_start();
    let (name, plain) = match rest.strip_prefix('.') {
        Some(name) => (name.trim_start(), true),
        None => {
            let inner = rest.strip_prefix('[')?.strip_suffix(']')?.trim();
            let quoted = |quote: char| inner.strip_prefix(quote)?.strip_suffix(quote);
            (quoted('"').or_else(|| quoted('\''))?, false)
        }
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || !plain && matches!(c, '-' | '.');
    (name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(fits)).then_some(name)
}

/// What in a value JSON has no word for, and would quietly become null.
fn not_json(value: &minijinja::Value) -> Option<&'static str> {
    match value.kind() {
        ValueKind::Undefined => Some("has a part that is undefined"),
        ValueKind::Number => {
            let infinite = f64::try_from(value.clone()).is_ok_and(|number| !number.is_finite());
            infinite.then_some("has a number that JSON has no word for")
        }
        ValueKind::Seq | ValueKind::Iterable => value.try_iter().ok()?.find_map(|item| not_json(&item)),
        ValueKind::Map => {
            let mut keys = value.try_iter().ok()?;
            keys.find_map(|key| {
                value.get_item(&key).map_or(Some("has a part that is undefined"), |item| not_json(&item))
            })
        }
        ValueKind::None | ValueKind::Bool | ValueKind::String => None,
        _ => Some("is not JSON"),
    }
}

fn describe(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}
