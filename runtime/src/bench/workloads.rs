//! What is measured on the server, and the limits beside it.

use std::time::Duration;

use indicatif::ProgressBar;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{Client, Hook};
use super::load::{LONGEST, Sample, closed_loop, open_loop};
use super::samples::{Facts, Samples};
use super::{BATCH, Bench, CONCURRENT, CONNECTIONS, LONG_RUN, MANY, ROUNDS};
use crate::store::probe::{Place, commit_rows};

/// How long one limit of the disk is measured in a round.
const PROBE: Duration = Duration::from_secs(2);

/// How long the open load goes on in a round, at most.
const PACED: Duration = Duration::from_secs(5);

/// Bytes of outputs of one size in a round.
const OUTPUTS_BYTES: u64 = 32 << 20;

impl Bench {
    /// What the disk and the network stack give, without Weir.
    pub(super) async fn limits(&self, samples: &mut Samples) -> anyhow::Result<()> {
        let probes = [
            ("one-row commits, 1 writer", 1, 1, &mut samples.commits_one),
            ("one-row commits, 64 writers", MANY, 1, &mut samples.commits_many),
            ("rows in batches", 1, BATCH, &mut samples.rows),
        ];
        let place = self.postgres.as_deref().map_or(Place::Directory(self.dir.path()), Place::Postgres);
        for (what, writers, batch, sample) in probes {
            self.part(what, 0);
            let committed = commit_rows(place, writers, batch, PROBE).await?;
            committed.transactions.iter().for_each(|took| sample.record(*took));
            sample.count += committed.rows;
            sample.time += committed.time;
        }
        for (connections, sample) in CONNECTIONS.into_iter().zip(&mut samples.bare) {
            let total = self.share(connections);
            let bar = self.part(&format!("bare HTTP handler, {connections} connections"), total);
            sample.add(&load(Until::Acknowledged, &self.bare, &self.hooks.bare, connections, total, bar).await?)?;
        }
        Ok(())
    }

    /// Acknowledged triggers that nobody executes.
    pub(super) async fn waiting(&self, samples: &mut Samples, facts: &mut Facts) -> anyhow::Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let bar = self.part("triggers, nobody executing", self.runs);
        let (client, hook) = (&own.waiting.client, &own.waiting.hook);
        samples.waiting.add(&load(Until::Acknowledged, client, hook, MANY, self.runs, bar).await?)?;
        let memory = own.waiting.server.memory();
        facts.waiting.extend(memory.map(|memory| (samples.waiting.count, memory.resident)));
        Ok(())
    }

    /// Acknowledged triggers, as quickly as may be and at half that speed. What they start is executed meanwhile, and
    /// waited for afterwards.
    pub(super) async fn triggers(&self, samples: &mut Samples) -> anyhow::Result<()> {
        let (client, hook) = (&self.client, &self.hooks.nothing);
        for (connections, sample) in CONNECTIONS.into_iter().zip(&mut samples.triggers) {
            let total = self.share(connections);
            let bar = self.part(&format!("triggers, {connections} connections"), total);
            sample.add(&load(Until::Acknowledged, client, hook, connections, total, bar).await?)?;
            client.all_complete(hook, LONGEST).await?;
        }
        let rate = samples.triggers[CONNECTIONS.len() - 1].per_second() / 2.0;
        let enough = Duration::from_secs_f64(f64::from(u32::try_from(self.share(MANY))?) / rate);
        self.part("triggers at half that speed", 0);
        let (paced, at) = (client.clone(), hook.clone());
        let work = move || request(Until::Acknowledged, paced.clone(), at.clone());
        samples.paced.add(&open_loop(rate, enough.min(PACED), work).await?)?;
        client.all_complete(hook, LONGEST).await
    }

    /// Runs from their trigger to their end: all at once, and one at a time.
    pub(super) async fn runs(&self, samples: &mut Samples) -> anyhow::Result<()> {
        let workloads = [
            ("http + snapshot", &self.hooks.http, &mut samples.http),
            ("tool + snapshot", &self.hooks.tool, &mut samples.tool),
        ];
        for (name, hook, [all, single]) in workloads {
            let total = self.share(MANY);
            let bar = self.part(&format!("{name}, all at once"), total);
            let began = Instant::now();
            let triggered = load(Until::Acknowledged, &self.client, hook, MANY, total, bar).await?;
            self.client.all_complete(hook, LONGEST).await?;
            all.add(&Sample::whole(triggered.count, began.elapsed())?)?;
            let total = self.share(1);
            let bar = self.part(&format!("{name}, one at a time"), total);
            single.add(&load(Until::Complete, &self.client, hook, 1, total, bar).await?)?;
        }
        let total = self.runs.div_ceil(400);
        let bar = self.part(&format!("runs of {LONG_RUN} snapshots"), total);
        samples.long.add(&load(Until::Complete, &self.client, &self.hooks.long, 1, total, bar).await?)
    }

    /// The http workload with more and more runs under way at once.
    pub(super) async fn scaling(&self, samples: &mut Samples) -> anyhow::Result<()> {
        for (concurrent, sample) in CONCURRENT.into_iter().zip(&mut samples.concurrent) {
            let total = self.share(MANY).div_ceil(2);
            let bar = self.part(&format!("http + snapshot, {concurrent} at a time"), total);
            sample.add(&load(Until::Complete, &self.client, &self.hooks.http, concurrent, total, bar).await?)?;
        }
        Ok(())
    }

    /// Long journals and large outputs.
    pub(super) async fn sizes(&self, samples: &mut Samples) -> anyhow::Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        for (steps, hook) in &own.limitless.journals {
            // The longest takes as long as all others together, so it is measured once.
            let measured = *steps > 1000 && samples.journals.contains_key(steps);
            if measured || steps * 2 > self.runs.max(20) {
                continue;
            }
            let total = (1000 / steps).clamp(1, self.runs.div_ceil(100));
            let bar = self.part(&format!("runs of {steps} http steps"), total);
            let sample = load(Until::Complete, &own.limitless.client, hook, 1, total, bar).await?;
            samples.journals.entry(*steps).or_insert(Sample::new()?).add(&sample)?;
        }
        for (bytes, hook) in &own.limitless.outputs {
            let total = (OUTPUTS_BYTES / bytes).min(self.share(MANY).div_ceil(2));
            let bar = self.part(&format!("outputs of {} KiB", bytes / 1024), total);
            let sample = load(Until::Complete, &own.limitless.client, hook, MANY, total, bar).await?;
            samples.outputs.entry(*bytes).or_insert(Sample::new()?).add(&sample)?;
        }
        Ok(())
    }

    /// The tool workload alone, and beside tools that misbehave: four that never end, and of the others twenty a second.
    pub(super) async fn beside(&self, samples: &mut Samples) -> anyhow::Result<()> {
        let total = self.runs.div_ceil(4);
        let bar = self.part("tools alone", total);
        samples.alone.add(&load(Until::Complete, &self.client, &self.hooks.tool, MANY, total, bar).await?)?;
        let mut endless = Vec::new();
        for _ in 0..4 {
            endless.push(self.client.trigger(&self.hooks.misbehaving[0]).await?);
        }
        let mut others = JoinSet::new();
        let (client, hooks) = (self.client.clone(), self.hooks.misbehaving[1..].to_vec());
        others.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            for hook in hooks.iter().cycle() {
                pace.tick().await;
                client.trigger(hook).await?;
            }
            anyhow::Ok(())
        });
        let bar = self.part("tools beside misbehaving ones", total);
        samples.beside.add(&load(Until::Complete, &self.client, &self.hooks.tool, MANY, total, bar).await?)?;
        others.shutdown().await;
        for run in endless {
            self.client.cancel(&run).await?;
        }
        Ok(())
    }

    /// Resident memory after 100 sequential calls and after 1,000 more, where it can be known.
    pub(super) async fn sequential(&self) -> anyhow::Result<Option<(u64, u64)>> {
        let Some(own) = &self.own else { return Ok(None) };
        let resident = || own.server.memory().map(|memory| memory.resident);
        let (client, tool) = (&self.client, &self.hooks.tool);
        load(Until::Complete, client, tool, 1, 100, self.part("warming up", 100)).await?;
        let before = resident();
        load(Until::Complete, client, tool, 1, 1000, self.part("1,000 sequential calls", 1000)).await?;
        Ok(before.zip(resident()))
    }

    /// Runs of one round over so many connections: fewer come one after the other.
    fn share(&self, connections: usize) -> u64 {
        let runs = self.runs / u64::from(ROUNDS);
        if connections == 1 { runs.div_ceil(10) } else { runs.max(1) }
    }
}

/// What a request of a workload waits for.
#[derive(Clone, Copy)]
enum Until {
    Acknowledged,
    Complete,
}

async fn request(until: Until, client: Client, hook: Hook) -> anyhow::Result<()> {
    match until {
        Until::Acknowledged => client.trigger(&hook).await.map(|_| ()),
        Until::Complete => client.complete(&hook).await,
    }
}

async fn load(
    until: Until,
    client: &Client,
    hook: &Hook,
    connections: usize,
    total: u64,
    bar: &ProgressBar,
) -> anyhow::Result<Sample> {
    let (client, hook) = (client.clone(), hook.clone());
    closed_loop(connections, total, bar, move || request(until, client.clone(), hook.clone())).await
}
