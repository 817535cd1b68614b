//! What was measured, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::load::Sample;

/// The result of one `weir bench`.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) server: String,
    /// Whether this is a build with optimisations; others say nothing about speed.
    pub(super) optimized: bool,
    pub(super) cores: usize,
    pub(super) measured: Vec<Measured>,
    pub(super) claims: Vec<Claim>,
}

/// One measurement, beside what limits it.
#[derive(Serialize)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) count: u64,
    pub(super) per_second: f64,
    /// None where only the whole was measured.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    /// The same in other units.
    pub(super) figures: Vec<Figure>,
    pub(super) limits: Vec<Limit>,
}

/// A measurement in another unit.
#[derive(Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
}

/// A limit, measured in the same run.
#[derive(Clone, Serialize)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) per_second: f64,
    /// The measurement as a part of the limit.
    pub(super) ratio: f64,
}

/// Something that Weir promises, and what came of it.
#[derive(Serialize)]
pub(super) struct Claim {
    pub(super) claim: String,
    pub(super) found: String,
    pub(super) holds: bool,
    /// What was found, as a number in the unit that the claim names.
    pub(super) value: f64,
    /// What is promised, in the same unit.
    pub(super) goal: f64,
    /// What limits it, measured in the same run and in the same unit.
    pub(super) limit: Option<ClaimLimit>,
}

/// What the value of a claim is held against.
#[derive(Serialize)]
pub(super) struct ClaimLimit {
    pub(super) name: String,
    pub(super) value: f64,
    /// The value found as a part of this one.
    pub(super) ratio: f64,
}

impl Measured {
    pub(super) fn new(name: impl Into<String>, sample: &Sample, limits: &[(&str, f64)]) -> Self {
        let per_second = sample.per_second();
        let limit = |(name, limit): &(&str, f64)| Limit {
            name: (*name).to_owned(),
            per_second: *limit,
            ratio: per_second / limit.max(1e-9),
        };
        Self {
            name: name.into(),
            count: sample.count,
            per_second,
            p50_ms: sample.has_latency().then(|| sample.percentile_ms(50.0)),
            p99_ms: sample.has_latency().then(|| sample.percentile_ms(99.0)),
            figures: Vec::new(),
            limits: limits.iter().map(limit).collect(),
        }
    }

    /// Adds the same in another unit.
    pub(super) fn with(mut self, name: &str, value: f64) -> Self {
        self.figures.push(Figure { name: name.to_owned(), value });
        self
    }
}

impl Report {
    /// The report as a table.
    pub(super) fn table(&self) -> String {
        let mut text = format!("weir {} on {} cores, against {}\n", self.version, self.cores, self.server);
        if !self.optimized {
            text += "This is a build without optimisations: only the form of what follows means something.\n";
        }
        let _ = writeln!(text, "\n{:<52} {:>9} {:>12} {:>9} {:>9}", "", "count", "a second", "p50 ms", "p99 ms");
        let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        for row in &self.measured {
            let _ = writeln!(
                text,
                "{:<52} {:>9} {:>12.1} {:>9} {:>9}",
                row.name,
                row.count,
                row.per_second,
                ms(row.p50_ms),
                ms(row.p99_ms)
            );
            for figure in &row.figures {
                let _ = writeln!(text, "  {:<50} {:>9} {:>12.3}", figure.name, "", figure.value);
            }
            for limit in &row.limits {
                let _ =
                    writeln!(text, "  {:<50} {:>9} {:>12.1} {:>9.2} x", limit.name, "", limit.per_second, limit.ratio);
            }
        }
        text += "\n";
        for claim in &self.claims {
            let verdict = if claim.holds { "yes" } else { "NO " };
            let _ = writeln!(text, "{verdict}  {}: {}", claim.claim, claim.found);
        }
        text
    }
}
