//! What came of a rehearsal: recorded calls, made again by a new version, in words and as JSON. Knows no server.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};
use weir_host::plugin::{Denial, Grant, Request};

use super::difference::{self, Difference, differences};
use crate::telemetry::one_line;
use crate::tools::{Outcome, Recorded, Replayed};

/// Requests that are told of one call.
const REQUESTS_TOLD: usize = 8;

/// What became of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It ended as before.
    Equal,
    /// It ended in another way.
    Different,
    /// It wanted what the recorded call did not have.
    WantsAccess,
    /// It failed, and did not before.
    Failed,
    /// It was not made again: some of its requests had no whole answer.
    LeftOut,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::WantsAccess => "wants access",
            Self::Failed => "failed",
            Self::LeftOut => "left out",
        }
    }
}

/// One call: as it was, and as it is.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Rehearsed {
    /// Which of the calls: 1 is the latest.
    pub(super) call: usize,
    tool: String,
    pub(super) verdict: Verdict,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<Difference>,
    /// What it wanted beyond the recorded call, and why it did not get it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wants: Vec<String>,
    /// Recorded requests that it does not make any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    no_longer: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<Fuel>,
}

/// Units of fuel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fuel {
    before: u64,
    after: u64,
}

impl Fuel {
    /// By how much it is more, in percent.
    fn percent(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a percentage is for people")]
        let (before, after) = (self.before as f64, self.after as f64);
        if self.before == 0 { 0.0 } else { (after - before) / before * 100.0 }
    }

    fn told(self) -> String {
        format!("{} -> {} ({:+.1} %)", self.before, self.after, self.percent())
    }
}

impl std::ops::AddAssign for Fuel {
    fn add_assign(&mut self, other: Self) {
        self.before = self.before.saturating_add(other.before);
        self.after = self.after.saturating_add(other.after);
    }
}

impl Serialize for Fuel {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let percent = (self.percent() * 10.0).round() / 10.0;
        json!({"before": self.before, "after": self.after, "change_percent": percent}).serialize(serializer)
    }
}

impl Rehearsed {
    /// A call that is not made again.
    pub(super) fn left_out(call: usize, recorded: &Recorded) -> Self {
        Self {
            call,
            tool: recorded.tool.clone(),
            verdict: Verdict::LeftOut,
            differences: Vec::new(),
            wants: Vec::new(),
            no_longer: Vec::new(),
            fuel: None,
        }
    }

    /// A call that was made again.
    pub(super) fn of(call: usize, recorded: &Recorded, replayed: &Replayed) -> Self {
        let known = |denial: &&Denial| !recorded.denied.contains(&denial.wanted);
        let wants: BTreeSet<String> =
            replayed.denied.iter().filter(known).map(|denial| format!("{} ({})", denial.wanted, denial.why)).collect();
        let differences = differences("/outcome", &json!(recorded.outcome), &json!(replayed.outcome));
        let fails = |outcome: &Outcome| matches!(outcome, Outcome::Failure(_));
        let verdict = match () {
            () if !wants.is_empty() => Verdict::WantsAccess,
            () if differences.is_empty() => Verdict::Equal,
            () if fails(&replayed.outcome) && !fails(&recorded.outcome) => Verdict::Failed,
            () => Verdict::Different,
        };
        let unasked = replayed.unasked.iter().map(|exchange| format!("{} {}", exchange.method, exchange.url));
        let measured = recorded.fuel > 0 && replayed.fuel > 0;
        Self {
            call,
            tool: recorded.tool.clone(),
            verdict,
            differences,
            wants: wants.into_iter().collect(),
            no_longer: unasked.collect(),
            fuel: measured.then_some(Fuel { before: recorded.fuel, after: replayed.fuel }),
        }
    }

    fn told(&self) -> String {
        let mut text = format!("{} {}: call {}\n", self.verdict.word(), self.tool, self.call);
        for wanted in self.wants.iter().take(REQUESTS_TOLD) {
            text += &format!("  wants {}\n", one_line(wanted));
        }
        text += &difference::told(&self.differences);
        for unasked in self.no_longer.iter().take(REQUESTS_TOLD) {
            text += &format!("  no longer {}\n", one_line(unasked));
        }
        text
    }
}

/// Everything that came of it.
#[derive(Debug, Serialize)]
pub(super) struct Rehearsal {
    /// What was rehearsed: its digest.
    pub(super) digest: String,
    /// The version whose calls were made again, as `name@version`.
    pub(super) against: String,
    /// What the new version asks for in its request beyond the grant.
    beyond: Vec<String>,
    /// Settings that are granted, and that the new version does not know.
    unknown_settings: Vec<String>,
    calls: Vec<Rehearsed>,
}

impl Rehearsal {
    /// A rehearsal of a plugin that asks for `request`, with what was granted before.
    pub(super) fn new(digest: String, against: String, request: &Request, grant: &Grant) -> Self {
        let beyond = request.beyond(grant).iter().map(ToString::to_string).collect();
        let unknown = grant.settings.keys().filter(|name| !request.settings.iter().any(|wish| wish.name == **name));
        let unknown_settings = unknown.cloned().collect();
        Self { digest, against, beyond, unknown_settings, calls: Vec::new() }
    }

    pub(super) fn add(&mut self, call: Rehearsed) {
        self.calls.push(call);
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.calls.iter().filter(|call| call.verdict == verdict).count()
    }

    /// What stands against the new version, in a sentence; none: it does the same.
    pub(super) fn objection(&self) -> Option<String> {
        let mut objections = Vec::new();
        if !self.beyond.is_empty() {
            objections.push("it asks for more than is granted".to_owned());
        }
        let calls = [
            (Verdict::WantsAccess, "wanted more than was recorded"),
            (Verdict::Failed, "failed"),
            (Verdict::Different, "ended in another way"),
        ];
        for (verdict, what) in calls {
            match self.count(verdict) {
                0 => {}
                count => objections.push(format!("{count} of {} calls {what}", self.calls.len())),
            }
        }
        if self.calls.len() == self.count(Verdict::LeftOut) {
            objections.push("no call could be made again".to_owned());
        }
        (!objections.is_empty()).then(|| objections.join("; "))
    }

    /// Fuel of all calls that were measured twice, and of each tool.
    fn fuel(&self) -> (Fuel, BTreeMap<&str, Fuel>) {
        let (mut sum, mut tools) = (Fuel::default(), BTreeMap::<&str, Fuel>::new());
        for call in &self.calls {
            if let Some(fuel) = call.fuel {
                sum += fuel;
                *tools.entry(&call.tool).or_default() += fuel;
            }
        }
        (sum, tools)
    }

    /// For a program.
    pub(super) fn document(&self) -> Value {
        let verdicts = [Verdict::Equal, Verdict::Different, Verdict::WantsAccess, Verdict::Failed, Verdict::LeftOut];
        let counts = verdicts.iter().map(|verdict| (json!(verdict), self.count(*verdict)));
        let counts: BTreeMap<String, usize> =
            counts.filter_map(|(name, count)| Some((name.as_str()?.to_owned(), count))).collect();
        let (sum, tools) = self.fuel();
        let mut document = json!(self);
        document["same"] = json!(self.objection().is_none());
        document["counts"] = json!(counts);
        document["fuel"] = json!({"sum": sum, "tools": tools});
        document
    }

    /// For a person: what is not equal, and what all of it comes to.
    pub(super) fn told(&self) -> String {
        let calls = if self.calls.len() == 1 { "call" } else { "calls" };
        let mut text = format!("{} makes {} {calls} of {} again\n", self.digest, self.calls.len(), self.against);
        for rule in &self.beyond {
            text += &format!("  asks for more: {rule}\n");
        }
        for name in &self.unknown_settings {
            text += &format!("  does not know the setting {name} any more\n");
        }
        let unequal = self.calls.iter().filter(|call| call.verdict != Verdict::Equal || !call.no_longer.is_empty());
        text += &unequal.map(Rehearsed::told).collect::<String>();
        let count = |verdict| format!("{} {}", self.count(verdict), Verdict::word(verdict));
        let verdicts = [Verdict::Equal, Verdict::Different, Verdict::WantsAccess, Verdict::Failed, Verdict::LeftOut];
        text += &format!("{}\n", verdicts.map(count).join(", "));
        let (sum, tools) = self.fuel();
        if sum.before > 0 {
            text += &format!("fuel {}\n", sum.told());
            for (tool, fuel) in tools {
                text += &format!("  {tool} {}\n", fuel.told());
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(change: &Value) -> Recorded {
        let mut call = json!({"tool": "t", "arguments": {}, "outcome": {"answer": {"result": 1}}, "fuel": 200});
        call.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        serde_json::from_value(call).expect("a call")
    }

    fn replayed(outcome: Outcome, denied: &[&str], fuel: u64) -> Replayed {
        let denial = |wanted: &&str| Denial { wanted: (*wanted).to_owned(), why: "no".to_owned() };
        let denied = denied.iter().map(denial).collect();
        Replayed { outcome, fuel, denied, unasked: Vec::new(), astray: None }
    }

    fn answer(result: u64) -> Outcome {
        Outcome::Answer(json!({"result": result}))
    }

    #[test]
    fn each_call_has_one_verdict() {
        let failure = || Outcome::Failure(json!({"code": "tool_failed", "message": "m"}));
        let failed = recorded(&json!({"outcome": {"failure": {"code": "tool_failed", "message": "m"}}}));
        let denied = recorded(&json!({"denied": ["GET http://a/"]}));
        for (recorded, replayed, expected) in [
            (recorded(&json!({})), replayed(answer(1), &[], 1), Verdict::Equal),
            (recorded(&json!({})), replayed(answer(2), &[], 1), Verdict::Different),
            (recorded(&json!({})), replayed(failure(), &[], 1), Verdict::Failed),
            (failed.clone(), replayed(failure(), &[], 1), Verdict::Equal),
            (failed, replayed(answer(1), &[], 1), Verdict::Different),
            // What was denied before is nothing new; anything else is, whatever the tool makes of it.
            (denied.clone(), replayed(answer(1), &["GET http://a/"], 1), Verdict::Equal),
            (denied.clone(), replayed(answer(1), &["GET http://a/", "GET http://b/"], 1), Verdict::WantsAccess),
            (denied, replayed(failure(), &["the secret `x`"], 1), Verdict::WantsAccess),
        ] {
            assert_eq!(Rehearsed::of(1, &recorded, &replayed).verdict, expected, "{replayed:?}");
        }
    }

    #[test]
    fn a_rehearsal_says_what_stands_against_the_new_version() {
        let request: Request = serde_json::from_value(json!({
            "name": "p", "http": [{"host": "a.example.com", "methods": ["GET"]}], "settings": [{"name": "a"}],
        }))
        .expect("a request");
        let mut grant = Grant::all_of(&request);
        grant.settings = BTreeMap::from([("a".to_owned(), String::new()), ("b".to_owned(), String::new())]);
        let new = |grant: &Grant| Rehearsal::new("sha256:1".to_owned(), "p@1".to_owned(), &request, grant);
        let mut same = new(&grant);
        same.add(Rehearsed::left_out(2, &recorded(&json!({}))));
        assert_eq!(same.objection().as_deref(), Some("no call could be made again"));
        same.add(Rehearsed::of(1, &recorded(&json!({})), &replayed(answer(1), &[], 300)));
        assert_eq!(same.objection(), None);
        let told = same.told();
        assert!(told.contains("does not know the setting b") && told.contains("left out t: call 2\n"), "{told}");
        assert!(told.contains("1 equal, 0 different, 0 wants access, 0 failed, 1 left out\n"), "{told}");
        assert!(told.ends_with("fuel 200 -> 300 (+50.0 %)\n  t 200 -> 300 (+50.0 %)\n"), "{told}");

        let mut other = new(&Grant::default());
        other.add(Rehearsed::of(1, &recorded(&json!({"tool": "u"})), &replayed(answer(2), &["GET http://b/"], 100)));
        other.add(Rehearsed::of(2, &recorded(&json!({})), &replayed(answer(2), &[], 0)));
        assert_eq!(
            other.objection().as_deref(),
            Some(
                "it asks for more than is granted; 1 of 2 calls wanted more than was recorded; \
                 1 of 2 calls ended in another way"
            )
        );
        let document = other.document();
        assert_eq!(document["beyond"], json!(["GET https://a.example.com/"]));
        assert_eq!(document["calls"][0]["wants"], json!(["GET http://b/ (no)"]));
        assert_eq!((&document["same"], &document["counts"]["different"]), (&json!(false), &json!(1)));
        assert_eq!(
            document["fuel"],
            json!({"sum": {"before": 200, "after": 100, "change_percent": -50.0},
                "tools": {"u": {"before": 200, "after": 100, "change_percent": -50.0}}})
        );
    }
}
