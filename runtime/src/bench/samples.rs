//! Everything that one `weir bench` sampled, and what it says.

use std::time::Duration;

use super::load::{Sample, per_second};
use super::report::{Claim, Measured};
use super::sandbox::Cost;
use super::{CONNECTIONS, LONG_RUN};

/// What is promised.
const TOOL_STEP_MAX: Duration = Duration::from_micros(50);
const BESIDE_MIN: f64 = 0.8;
const GROWTH_MAX_BYTES: u64 = 8 << 20;

/// The samples of all rounds.
pub(super) struct Samples {
    pub(super) commits_one: (u64, Duration),
    pub(super) commits_many: (u64, Duration),
    pub(super) rows: (u64, Duration),
    pub(super) bare: [Sample; 3],
    pub(super) triggers: [Sample; 3],
    pub(super) http: [Sample; 2],
    pub(super) tool: [Sample; 2],
    pub(super) long: Sample,
    pub(super) alone: Sample,
    pub(super) beside: Sample,
}

impl Samples {
    pub(super) fn new() -> anyhow::Result<Self> {
        let sample = Sample::new;
        Ok(Self {
            commits_one: Default::default(),
            commits_many: Default::default(),
            rows: Default::default(),
            bare: [sample()?, sample()?, sample()?],
            triggers: [sample()?, sample()?, sample()?],
            http: [sample()?, sample()?],
            tool: [sample()?, sample()?],
            long: sample()?,
            alone: sample()?,
            beside: sample()?,
        })
    }

    pub(super) fn rows(&self, cost: &Cost) -> Vec<Measured> {
        let rate = |(rows, time): (u64, Duration)| per_second(rows, time);
        let (one, many, rows) = (rate(self.commits_one), rate(self.commits_many), rate(self.rows));
        let mut measured = Vec::new();
        for (at, connections) in CONNECTIONS.into_iter().enumerate() {
            let handler = ("bare HTTP handler, as many connections", self.bare[at].per_second());
            let disk = match connections {
                1 => vec![("one-row commits, 1 writer", one)],
                _ => vec![("one-row commits, 64 writers", many), ("rows in batches of 256, 1 writer", rows)],
            };
            let name = format!("acknowledged triggers, {connections} connections");
            measured.push(Measured::new(name, &self.triggers[at], &[disk, vec![handler]].concat()));
        }
        let calls = ("bare instantiate + call of the tool, 1 core", 1.0 / cost.bare.as_secs_f64());
        for (name, samples, more) in
            [("http + snapshot", &self.http, None), ("tool + snapshot", &self.tool, Some(calls))]
        {
            let limits = [vec![("rows in batches of 256, 1 writer", rows)], more.into_iter().collect()].concat();
            measured.push(Measured::new(format!("runs of {name}, 64 at a time"), &samples[0], &limits));
            let limits = [("one-row commits, 1 writer", one)];
            measured.push(Measured::new(format!("runs of {name}, one at a time"), &samples[1], &limits));
        }
        let limits = [("one-row commits, 1 writer", one)];
        measured.push(Measured::new(format!("runs of {LONG_RUN} snapshots, one at a time"), &self.long, &limits));
        measured
    }
}

/// What is promised, held against what was measured.
pub(super) fn claims(samples: &Samples, cost: &Cost, memory: Option<(u64, u64)>) -> Vec<Claim> {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let more = cost.step.saturating_sub(cost.bare);
    let kept = samples.beside.per_second() / samples.alone.per_second();
    let mut claims = vec![
        Claim {
            claim: "a warm tool step costs no more than bare instantiate + call and 50 us of processor time".to_owned(),
            found: format!("{:.1} us, of which {:.1} us are bare", us(cost.step), us(cost.bare)),
            holds: more <= TOOL_STEP_MAX,
        },
        Claim {
            claim: "beside tools that misbehave, others keep 80 % of their speed".to_owned(),
            found: format!(
                "{:.0} % ({:.0} runs a second beside, {:.0} alone)",
                kept * 100.0,
                samples.beside.per_second(),
                samples.alone.per_second()
            ),
            holds: kept >= BESIDE_MIN,
        },
    ];
    if let Some((before, after)) = memory {
        claims.push(Claim {
            claim: "1,000 sequential calls leave no growth in memory".to_owned(),
            found: format!("{} KiB before, {} KiB after", before / 1024, after / 1024),
            holds: after < before + GROWTH_MAX_BYTES,
        });
    }
    claims
}
