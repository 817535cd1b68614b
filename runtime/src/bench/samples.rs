//! Everything that one `weir bench` sampled, as rows of a table.

use std::collections::BTreeMap;
use std::time::Duration;

use super::load::Sample;
use super::report::Measured;
use super::sandbox::Cost;
use super::stored::Stored;
use super::{CONCURRENT, CONNECTIONS, LONG_RUN};

/// Names of the limits of the disk.
pub(super) const ONE_WRITER: &str = "one-row commits, 1 writer";
pub(super) const MANY_WRITERS: &str = "one-row commits, 64 writers";
pub(super) const IN_BATCHES: &str = "rows in batches of 256, 1 writer";
const BARE: &str = "bare HTTP handler, as many connections";

/// The samples of all rounds.
pub(super) struct Samples {
    pub(super) commits_one: Sample,
    pub(super) commits_many: Sample,
    /// Rows in batches; the latency is that of a batch.
    pub(super) rows: Sample,
    pub(super) bare: [Sample; 3],
    /// Triggers that nobody executes.
    pub(super) waiting: Sample,
    pub(super) triggers: [Sample; 3],
    /// Triggers at half the speed of the last of those.
    pub(super) paced: Sample,
    /// All at once, and one at a time.
    pub(super) http: [Sample; 2],
    pub(super) tool: [Sample; 2],
    pub(super) long: Sample,
    pub(super) concurrent: [Sample; 3],
    /// By the steps of a run.
    pub(super) journals: BTreeMap<u64, Sample>,
    /// By the bytes of an output.
    pub(super) outputs: BTreeMap<u64, Sample>,
    pub(super) alone: Sample,
    pub(super) beside: Sample,
}

/// What was seen once, where it could be seen. Memory is in bytes.
#[derive(Default)]
pub(super) struct Facts {
    /// Resident right after the start.
    pub(super) idle: Option<u64>,
    /// The most that was resident until the end of the workloads.
    pub(super) peak: Option<u64>,
    /// Runs that waited, and what was resident of the process that took them.
    pub(super) waiting: Vec<(u64, u64)>,
    /// Resident before and after many calls.
    pub(super) sequential: Option<(u64, u64)>,
    /// From the start of the process until it was ready.
    pub(super) ready: Option<Duration>,
    /// What the cache of compiled plugins saves.
    pub(super) stored: Option<Stored>,
}

impl Samples {
    pub(super) fn new() -> anyhow::Result<Self> {
        let sample = Sample::new;
        Ok(Self {
            commits_one: sample()?,
            commits_many: sample()?,
            rows: sample()?,
            bare: [sample()?, sample()?, sample()?],
            waiting: sample()?,
            triggers: [sample()?, sample()?, sample()?],
            paced: sample()?,
            http: [sample()?, sample()?],
            tool: [sample()?, sample()?],
            long: sample()?,
            concurrent: [sample()?, sample()?, sample()?],
            journals: BTreeMap::new(),
            outputs: BTreeMap::new(),
            alone: sample()?,
            beside: sample()?,
        })
    }

    /// Milliseconds from the first statement of a one-row transaction until it is on disk, with one writer.
    pub(super) fn commit_ms(&self) -> f64 {
        self.commits_one.percentile_ms(50.0)
    }

    pub(super) fn rows(&self, cost: &Cost) -> Vec<Measured> {
        let one = [(ONE_WRITER, self.commits_one.per_second())];
        let batches = (IN_BATCHES, self.rows.per_second());
        let mut measured = vec![
            Measured::new("one-row transactions, 1 writer", &self.commits_one, &[batches]),
            Measured::new("one-row transactions, 64 writers", &self.commits_many, &[batches]),
        ];
        measured.extend(self.triggers());
        let calls = ("bare instantiate + call of the tool, 1 core", 1.0 / cost.bare.as_secs_f64());
        for (name, samples, limits) in
            [("http + snapshot", &self.http, vec![batches]), ("tool + snapshot", &self.tool, vec![batches, calls])]
        {
            measured.push(Measured::new(format!("runs of {name}, all at once"), &samples[0], &limits));
            measured.push(Measured::new(format!("runs of {name}, one at a time"), &samples[1], &one));
        }
        measured.push(Measured::new(format!("runs of {LONG_RUN} snapshots, one at a time"), &self.long, &one));
        for (concurrent, sample) in CONCURRENT.into_iter().zip(&self.concurrent) {
            let name = format!("runs of http + snapshot, {concurrent} at a time");
            measured.push(Measured::new(name, sample, &[batches]));
        }
        for (steps, sample) in &self.journals {
            let row = Measured::new(format!("runs of {steps} http steps, one at a time"), sample, &one);
            measured.push(row.with("ms a step", step_ms(*steps, sample)));
        }
        for (bytes, sample) in &self.outputs {
            let row =
                Measured::new(format!("runs with outputs of {} KiB, 64 at a time", bytes / 1024), sample, &[batches]);
            measured.push(row.with("MB a second", sample.per_second() * float(*bytes) / 1e6));
        }
        measured
    }

    fn triggers(&self) -> Vec<Measured> {
        let many = (MANY_WRITERS, self.commits_many.per_second());
        let batches = (IN_BATCHES, self.rows.per_second());
        let bare = |at: usize| (BARE, self.bare[at].per_second());
        let last = CONNECTIONS.len() - 1;
        let mut measured = Vec::new();
        if self.waiting.count > 0 {
            let name = "triggers, 64 connections, nobody executing";
            measured.push(Measured::new(name, &self.waiting, &[many, batches, bare(last)]));
        }
        for (at, connections) in CONNECTIONS.into_iter().enumerate() {
            let limits = match connections {
                1 => vec![(ONE_WRITER, self.commits_one.per_second()), bare(at)],
                _ => vec![many, batches, bare(at)],
            };
            measured.push(Measured::new(format!("triggers, {connections} connections"), &self.triggers[at], &limits));
        }
        let full = ("triggers, 64 connections", self.triggers[last].per_second());
        measured.push(Measured::new("triggers at half that speed, at fixed times", &self.paced, &[full]));
        measured
    }
}

/// Milliseconds that a step took in runs of so many, from the trigger to the end.
pub(super) fn step_ms(steps: u64, sample: &Sample) -> f64 {
    sample.percentile_ms(50.0) / float(steps)
}

/// Counts and bytes are far below what a float can hold.
#[expect(clippy::cast_precision_loss, reason = "they are far below 2^52")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
