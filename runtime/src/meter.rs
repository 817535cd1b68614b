//! What is counted and measured, for `/metrics`: every metric is named here and nowhere else. The only user of the
//! library. `docs/OPERATIONS.md` says what to watch, and `docs/grafana.json` and `docs/alerts.yml` watch it.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Meter::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Seconds = Gauge<f64, AtomicU64>;
type Timed<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// From a tenth of a millisecond to two minutes.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.5, 16))
}

/// From one row to the largest batch.
fn rows() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 9))
}

/// Every metric of this process.
pub struct Meter {
    registry: Registry,
    accepted: Counter,
    finished: Family<Labels<1>, Counter>,
    run_seconds: Timed<1>,
    attempts: Family<Labels<2>, Counter>,
    attempt_seconds: Timed<1>,
    claims: Family<Labels<1>, Counter>,
    leases_lost: Counter,
    plugins_loaded: Family<Labels<1>, Counter>,
    commit_rows: Timed<1>,
    commit_seconds: Timed<1>,
    request_seconds: Timed<2>,
    executing: Gauge,
    oldest_claimable: Seconds,
    connections: Family<Labels<1>, Gauge>,
    database_up: Gauge,
    redis_up: Gauge,
}

static METER: LazyLock<Meter> = LazyLock::new(Meter::new);

/// The meter of this process.
#[must_use]
pub fn meter() -> &'static Meter {
    &METER
}

impl Meter {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("weir");
        macro_rules! metric {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
            ($name:literal in seconds, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register_with_unit($name, $help, Unit::Seconds, metric.clone());
                metric
            }};
        }
        let timed1 = || Timed::<1>::new_with_constructor(seconds);
        Self {
            accepted: metric!("runs_accepted", "Runs that were put on disk", Counter::default()),
            finished: metric!("runs_finished", "Runs that came to their end in this process", Family::default()),
            run_seconds: metric!("run" in seconds, "From a run's creation to its end", timed1()),
            attempts: metric!("step_attempts", "Attempts of steps that ended, by what came of them", Family::default()),
            attempt_seconds: metric!("step_attempt" in seconds, "How long attempts of steps took", timed1()),
            claims: metric!("claims", "Runs that were claimed, by what led to them", Family::default()),
            leases_lost: metric!("leases_lost", "Claims that somebody else took over", Counter::default()),
            plugins_loaded: metric!(
                "plugins_loaded",
                "Plugins that were made ready, by where their code came from",
                Family::default()
            ),
            commit_rows: metric!("commit_rows", "Writes in one commit", Timed::<1>::new_with_constructor(rows)),
            commit_seconds: metric!("commit" in seconds, "How long a commit took", timed1()),
            request_seconds: metric!(
                "http_request" in seconds, "How long requests took", Timed::<2>::new_with_constructor(seconds)
            ),
            executing: metric!("runs_executing", "Runs that this process executes now", Gauge::default()),
            oldest_claimable: metric!(
                "oldest_claimable" in seconds, "How long the run that is due longest waits for a worker", Seconds::default()
            ),
            connections: metric!("database_connections", "Connections for requests, by state", Family::default()),
            database_up: metric!("database_up", "Whether the database answers (1) or not (0)", Gauge::default()),
            redis_up: metric!("redis_up", "Whether hints reach other processes (1) or not (0)", Gauge::default()),
            registry,
        }
    }

    /// A run was put on disk.
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// A run came to its end, this long after its creation.
    pub fn finished(&self, outcome: &'static str, after: Duration) {
        self.finished.get_or_create(&[("outcome", outcome)]).inc();
        self.run_seconds.get_or_create(&[("outcome", outcome)]).observe(after.as_secs_f64());
    }

    /// An attempt of a step of this kind ended; `result` is `ok`, `asked` where a tool asks, or the code of its failure.
    pub fn attempted(&self, kind: &'static str, result: &'static str, took: Duration) {
        self.attempts.get_or_create(&[("kind", kind), ("result", result)]).inc();
        self.attempt_seconds.get_or_create(&[("kind", kind)]).observe(took.as_secs_f64());
    }

    /// Runs were claimed, led to by `by`: a hint, their time, or a message.
    pub fn claimed(&self, by: &'static str, count: usize) {
        self.claims.get_or_create(&[("by", by)]).inc_by(count as u64);
    }

    /// A claim of this process is somebody else's now.
    pub fn lease_lost(&self) {
        self.leases_lost.inc();
    }

    /// A plugin was made ready, with code from the `cache` or the `compiler`.
    pub fn plugin_loaded(&self, from: &'static str) {
        self.plugins_loaded.get_or_create(&[("from", from)]).inc();
    }

    /// So many writes of a kind were committed together.
    pub fn committed(&self, kind: &'static str, count: usize, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        self.commit_rows.get_or_create(&[("kind", kind)]).observe(count as f64);
        self.commit_seconds.get_or_create(&[("kind", kind)]).observe(took.as_secs_f64());
    }

    /// A request was answered with this status.
    pub fn answered(&self, method: &'static str, status: u16, took: Duration) {
        let class =
            ["1xx", "2xx", "3xx", "4xx", "5xx"].get(usize::from(status / 100).wrapping_sub(1)).unwrap_or(&"other");
        self.request_seconds.get_or_create(&[("method", method), ("status", class)]).observe(took.as_secs_f64());
    }

    /// So many runs are executed now.
    pub fn executing(&self, count: usize) {
        self.executing.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// What is asked for when somebody reads the metrics: how long the oldest claimable run waits, where the database could
    /// say so; the connections in use and idle; and whether Redis is there.
    pub fn sampled(&self, oldest_claimable: Option<Duration>, (used, idle): (usize, usize), redis_up: bool) {
        self.database_up.set(i64::from(oldest_claimable.is_some()));
        if let Some(oldest) = oldest_claimable {
            self.oldest_claimable.set(oldest.as_secs_f64());
        }
        self.connections.get_or_create(&[("state", "used")]).set(i64::try_from(used).unwrap_or(i64::MAX));
        self.connections.get_or_create(&[("state", "idle")]).set(i64::try_from(idle).unwrap_or(i64::MAX));
        self.redis_up.set(i64::from(redis_up));
    }

    /// All metrics, as Prometheus reads them.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_can_be_read() {
        let meter = Meter::new();
        meter.accepted();
        meter.finished("SUCCEEDED", Duration::from_millis(20));
        meter.attempted("http", "step_timeout", Duration::from_secs(3));
        meter.claimed("hint", 3);
        meter.plugin_loaded("cache");
        meter.committed("create", 17, Duration::from_millis(2));
        meter.answered("POST", 503, Duration::from_millis(1));
        meter.sampled(Some(Duration::from_millis(1500)), (2, 3), true);
        let text = meter.text();
        for line in [
            "weir_runs_accepted_total 1",
            "weir_runs_finished_total{outcome=\"SUCCEEDED\"} 1",
            "weir_run_seconds_count{outcome=\"SUCCEEDED\"} 1",
            "weir_step_attempts_total{kind=\"http\",result=\"step_timeout\"} 1",
            "weir_claims_total{by=\"hint\"} 3",
            "weir_plugins_loaded_total{from=\"cache\"} 1",
            "weir_commit_rows_sum{kind=\"create\"} 17.0",
            "weir_http_request_seconds_count{method=\"POST\",status=\"5xx\"} 1",
            "weir_oldest_claimable_seconds 1.5",
            "weir_database_connections{state=\"idle\"} 3",
            "weir_redis_up 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
