//! What is promised, held against what was measured. The goals are for two cores, which load generator, target, database
//! and server share, and a disk that is waited for.

use std::time::Duration;

use super::report::{Claim, ClaimLimit};
use super::samples::{Facts, IN_BATCHES, MANY_WRITERS, Samples, float, step_ms};
use super::sandbox::{Cost, Costs};
use super::stored::Stored;

/// What differs between the modes, each a second.
struct Goals {
    /// Triggers that are executed meanwhile.
    triggers: f64,
    /// Runs of http + snapshot.
    http: f64,
    /// Runs of tool + snapshot.
    tool: f64,
}

const CLUSTER: Goals = Goals { triggers: 2000.0, http: 2000.0, tool: 2300.0 };
const EMBEDDED: Goals = Goals { triggers: 3000.0, http: 3000.0, tool: 3500.0 };

/// Triggers that nobody executes, as a part of what the disk can do: see [`unexecuted`].
const UNEXECUTED_CLUSTER: f64 = 1.0;
const UNEXECUTED_EMBEDDED: f64 = 0.5;

const ACKNOWLEDGED_P99_MS: f64 = 30.0;
/// Beside the commits that a run needs.
const ONE_RUN_MORE_MS: f64 = 2.0;
const LONG_RUN_MORE_MS: f64 = 5.0;
const IDLE_MIB: f64 = 40.0;
const LOADED_MIB: f64 = 150.0;
const READY_MS: f64 = 200.0;
/// What memory may grow by where it should not. Of 20,000 waiting runs, 4 MiB are 210 bytes each: less than a run has.
const GROWTH_MIB: f64 = 8.0;
const WAITING_MIB: f64 = 4.0;
/// How much slower it may be with many runs at once, and in a long run.
const CONCURRENT_MIN: f64 = 0.8;
const LONG_STEP_MAX: f64 = 1.5;
const TOOL_STEP_MAX: Duration = Duration::from_micros(50);
const BESIDE_MIN: f64 = 0.8;
/// How many times as long as loading a component from the cache compiling it takes.
const LOADED_MIN: f64 = 100.0;

/// Everything that is promised, as far as it was measured.
pub(super) fn claims(samples: &Samples, facts: &Facts, costs: &Costs, cluster: bool) -> Vec<Claim> {
    let goals = if cluster { CLUSTER } else { EMBEDDED };
    let mut claims: Vec<Claim> = unexecuted(samples, cluster).into_iter().chain(untouched(facts)).collect();
    claims.extend(speeds(samples, &goals));
    claims.extend(latencies(samples));
    claims.extend(memory(facts));
    claims.extend(scaling(samples));
    claims.extend(tools(samples, facts, costs));
    claims.extend(facts.stored.as_ref().map(stored));
    claims
}

/// Triggers on a server that executes nothing.
fn unexecuted(samples: &Samples, cluster: bool) -> Option<Claim> {
    let (part, name, limit) = if cluster {
        (UNEXECUTED_CLUSTER, MANY_WRITERS, samples.commits_many.per_second())
    } else {
        (UNEXECUTED_EMBEDDED, IN_BATCHES, samples.rows.per_second())
    };
    let what = format!("triggers a second with nobody executing, 64 connections, at least {part} x {name}");
    let claim = at_least(what, samples.waiting.per_second(), part * limit, "a second", Some((name, limit)));
    (samples.waiting.count > 0).then_some(claim)
}

/// Whether runs that wait take memory: of so many, and of as many more.
fn untouched(facts: &Facts) -> Option<Claim> {
    let [(few, before), .., (many, after)] = facts.waiting[..] else { return None };
    let what = format!("{} more waiting runs take less memory than {WAITING_MIB} MiB", many - few);
    let claim = at_most(what, mib(after) - mib(before), WAITING_MIB, "MiB", None);
    let found = format!("{:.1} MiB with {few} waiting, {:.1} MiB with {many}", mib(before), mib(after));
    Some(Claim { found, ..claim })
}

fn speeds(samples: &Samples, goals: &Goals) -> [Claim; 4] {
    let many = Some((MANY_WRITERS, samples.commits_many.per_second()));
    let rows = Some((IN_BATCHES, samples.rows.per_second()));
    let at_64 = samples.triggers[2].per_second();
    let what = "triggers a second beside executing them, 64 connections";
    let commit = Some(("one durable commit", samples.commit_ms()));
    let p99 = samples.paced.percentile_ms(99.0);
    [
        at_least(format!("{what}, at least {:.0}", goals.triggers), at_64, goals.triggers, "a second", many),
        at_most(
            format!("acknowledged at half that speed, p99, at most {ACKNOWLEDGED_P99_MS} ms"),
            p99,
            ACKNOWLEDGED_P99_MS,
            "ms",
            commit,
        ),
        at_least(
            format!("completed runs of http + snapshot a second, at least {:.0}", goals.http),
            samples.http[0].per_second(),
            goals.http,
            "a second",
            rows,
        ),
        at_least(
            format!("completed runs of tool + snapshot a second, at least {:.0}", goals.tool),
            samples.tool[0].per_second(),
            goals.tool,
            "a second",
            rows,
        ),
    ]
}

fn latencies(samples: &Samples) -> [Claim; 2] {
    let commit = samples.commit_ms();
    let limit = Some(("one durable commit", commit));
    [
        at_most(
            format!("trigger to complete, http + snapshot, p50, at most 2 durable commits + {ONE_RUN_MORE_MS} ms"),
            samples.http[1].percentile_ms(50.0),
            2.0 * commit + ONE_RUN_MORE_MS,
            "ms",
            limit,
        ),
        at_most(
            format!("a run of 100 snapshots, p50, at most 3 durable commits + {LONG_RUN_MORE_MS} ms"),
            samples.long.percentile_ms(50.0),
            3.0 * commit + LONG_RUN_MORE_MS,
            "ms",
            limit,
        ),
    ]
}

fn memory(facts: &Facts) -> impl Iterator<Item = Claim> {
    let below = |what: &str, found: Option<f64>, goal: f64, unit: &str| {
        found.map(|found| at_most(format!("{what}, at most {goal} {unit}"), found, goal, unit, None))
    };
    let claims = [
        below("resident memory when idle", facts.idle.map(mib), IDLE_MIB, "MiB"),
        below("resident memory under load", facts.peak.map(mib), LOADED_MIB, "MiB"),
        below(
            "ready after a start with 20 plugins and all these runs",
            facts.ready.map(|ready| ready.as_secs_f64() * 1e3),
            READY_MS,
            "ms",
        ),
    ];
    claims.into_iter().flatten()
}

fn scaling(samples: &Samples) -> impl Iterator<Item = Claim> {
    let [_, hundred, thousand] = &samples.concurrent;
    let concurrent = at_least(
        format!("runs a second with 1,000 at once, at least {CONCURRENT_MIN} x those with 100"),
        thousand.per_second(),
        CONCURRENT_MIN * hundred.per_second(),
        "a second",
        Some(("100 at a time", hundred.per_second())),
    );
    let mut journals = samples.journals.iter().map(|(steps, sample)| (*steps, step_ms(*steps, sample))).skip(1);
    let (base, longest) = (journals.next(), journals.last());
    let journal = base.zip(longest).map(|((short, before), (long, after))| {
        let what = format!("ms a step in a run of {long} appends, at most {LONG_STEP_MAX} x that in one of {short}");
        let name = format!("{short} appends");
        at_most(what, after, LONG_STEP_MAX * before, "ms", Some((&name, before)))
    });
    [concurrent].into_iter().chain(journal)
}

fn tools(samples: &Samples, facts: &Facts, costs: &Costs) -> Vec<Claim> {
    let (beside, alone) = (samples.beside.per_second(), samples.alone.per_second());
    let mut claims = vec![
        warm("a warm tool step", &costs.plain),
        warm("the same with a grant, a secret and what it did written down", &costs.rights),
        at_least(
            format!("runs a second beside tools that misbehave, at least {BESIDE_MIN} x those alone"),
            beside,
            BESIDE_MIN * alone,
            "a second",
            Some(("alone", alone)),
        ),
    ];
    if let Some((before, after)) = facts.sequential {
        let what = format!("1,000 sequential calls leave less than {GROWTH_MIB} MiB of memory");
        let claim = at_most(what, mib(after) - mib(before), GROWTH_MIB, "MiB", None);
        claims.push(Claim { found: format!("{:.1} MiB before, {:.1} MiB after", mib(before), mib(after)), ..claim });
    }
    claims
}

/// What a step costs beside the bare call of the same component.
fn warm(what: &str, cost: &Cost) -> Claim {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let what =
        format!("processor time of {what}, at most bare instantiate + call and {} us", TOOL_STEP_MAX.as_micros());
    at_most(what, us(cost.step), us(cost.bare + TOOL_STEP_MAX), "us", Some(("bare", us(cost.bare))))
}

/// What the cache of compiled plugins saves.
fn stored(stored: &Stored) -> Claim {
    let (compiled, loaded) = (stored.compiled.as_secs_f64() * 1e3, stored.loaded.as_secs_f64() * 1e3);
    let what = format!("a compiled component is loaded at least {LOADED_MIN} x as fast as compiled");
    let claim = at_least(what, compiled / loaded.max(1e-9), LOADED_MIN, "x", None);
    let found = format!("{}: {} bytes, {compiled:.0} ms compiled, {loaded:.2} ms loaded", claim.found, stored.size);
    Claim { found, ..claim }
}

fn at_least(claim: String, value: f64, goal: f64, unit: &str, limit: Option<(&str, f64)>) -> Claim {
    judged(claim, value, goal, unit, limit, value >= goal)
}

fn at_most(claim: String, value: f64, goal: f64, unit: &str, limit: Option<(&str, f64)>) -> Claim {
    judged(claim, value, goal, unit, limit, value <= goal)
}

fn judged(claim: String, value: f64, goal: f64, unit: &str, limit: Option<(&str, f64)>, holds: bool) -> Claim {
    // Three digits or so.
    let number = |value: f64| match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        small if small < 1.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    };
    let mut found = format!("{} {unit} (goal {})", number(value), number(goal));
    let limit =
        limit.map(|(name, limit)| ClaimLimit { name: name.to_owned(), value: limit, ratio: value / limit.max(1e-9) });
    if let Some(ClaimLimit { name, value, ratio }) = &limit {
        found += &format!(", {ratio:.2} x {name} ({})", number(*value));
    }
    Claim { claim, found, holds, value, goal, limit }
}

fn mib(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}
