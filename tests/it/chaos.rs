//! Survives anything, part three: a cluster of real processes under load, and one fault after the other. `make test` runs each
//! kind of fault once or twice; `make chaos` runs ten thousand of them.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;
use serde_json::json;
use weir_tests::cluster::Cluster;
use weir_tests::load::{Senders, Witness};
use weir_tests::process::Weir;
use weir_tests::target::Target;
use weir_tests::within;

const APIS: usize = 2;
const WORKERS: usize = 3;
const SENDERS: usize = 6;

/// Most runs that one worker executes at once: what one fault can interrupt at most.
const RUNS_MAX: usize = 16;

/// After so many faults everything that was acknowledged is checked, and a new round begins.
const ROUND: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillWorker,
    KillApi,
    KillAllWorkers,
    /// Stopped for longer than its leases, and then continued.
    FreezeWorker,
    FlushRedis,
    RestartRedis,
    StopPostgresFast,
    StopPostgresImmediate,
    CutPostgres,
    StallPostgres,
    CutRedis,
    StallRedis,
    /// SIGTERM to every process in turn, as a new version comes.
    RollingRestart,
}

use Fault::*;

/// Each kind of fault as often as it stands here; those that last long come seldom.
const FAULTS: [Fault; 26] = [
    KillWorker,
    KillWorker,
    KillWorker,
    KillWorker,
    KillWorker,
    KillApi,
    KillApi,
    KillApi,
    KillAllWorkers,
    KillAllWorkers,
    KillAllWorkers,
    FlushRedis,
    FlushRedis,
    RestartRedis,
    RestartRedis,
    CutPostgres,
    CutPostgres,
    CutPostgres,
    CutRedis,
    CutRedis,
    StopPostgresFast,
    StopPostgresImmediate,
    FreezeWorker,
    StallRedis,
    StallPostgres,
    RollingRestart,
];

struct World {
    cluster: Cluster,
    apis: Vec<Weir>,
    workers: Vec<Weir>,
    target: Target,
    witness: Witness,
    dice: StdRng,
}

impl World {
    async fn start(seed: u64) -> Self {
        let (cluster, target) = tokio::join!(Cluster::behind_proxies(), Target::start());
        let runs_max = format!("concurrent_runs_max={RUNS_MAX}");
        let settings = ["lease_seconds=2", "log_level=warn,weir::app=info", "shutdown_timeout_seconds=5", &runs_max];
        let (mut apis, mut workers) = (Vec::new(), Vec::new());
        for _ in 0..APIS {
            apis.push(cluster.weir("api", &settings).await);
        }
        for _ in 0..WORKERS {
            workers.push(cluster.weir("worker", &settings).await);
        }
        let (witness, steps) = Witness::watch(&target);
        apis[0].endpoint(&apis[0].workflow(&steps).await, "load").await;
        Self { cluster, apis, workers, target, witness, dice: StdRng::seed_from_u64(seed) }
    }

    fn urls(&self) -> Vec<String> {
        self.apis.iter().map(|api| api.url("")).collect()
    }

    /// Waits until the end of every lease that is held now, by the database's clock.
    async fn leases_end(&self) {
        self.cluster
            .sql("SELECT pg_sleep_until(to_timestamp(max(lease_until) / 1e6)) FROM runs WHERE claim IS NOT NULL")
            .await;
    }

    async fn inflict(&mut self, fault: Fault, senders: &Senders) {
        let (worker, api) = (self.dice.random_range(0..WORKERS), self.dice.random_range(0..APIS));
        match fault {
            KillWorker => {
                self.workers[worker].kill();
                self.workers[worker].restart().await;
            }
            KillApi => {
                self.apis[api].kill();
                self.apis[api].restart().await;
                senders.redirect(self.urls());
            }
            KillAllWorkers => {
                self.workers.iter_mut().for_each(Weir::kill);
                for worker in &mut self.workers {
                    worker.restart().await;
                }
            }
            FreezeWorker => {
                self.workers[worker].signal(Signal::STOP);
                self.leases_end().await;
                self.workers[worker].signal(Signal::CONT);
            }
            FlushRedis => {
                self.cluster.redis.command(&["FLUSHALL"]).await;
            }
            RestartRedis => {
                self.cluster.redis.kill();
                self.cluster.redis.start_again().await;
            }
            StopPostgresFast | StopPostgresImmediate => {
                self.cluster.postgres.stop(fault == StopPostgresFast).await;
                self.cluster.postgres.start_again().await;
            }
            CutPostgres | CutRedis => {
                let (postgres, redis) = self.cluster.proxies.as_ref().expect("proxies");
                if fault == CutPostgres { postgres.cut().await } else { redis.cut().await }
            }
            StallPostgres => {
                // Until the door says so.
                let refused = *senders.refused().borrow();
                self.cluster.proxies.as_ref().expect("proxies").0.stall();
                within("a refusal", senders.refused().wait_for(|now| *now > refused)).await.expect("senders live");
                self.cluster.proxies.as_ref().expect("proxies").0.resume();
            }
            StallRedis => {
                self.cluster.proxies.as_ref().expect("proxies").1.stall();
                for worker in &self.workers {
                    degraded(worker).await;
                }
                self.cluster.proxies.as_ref().expect("proxies").1.resume();
            }
            RollingRestart => self.rolling_restart(senders).await,
        }
    }

    async fn rolling_restart(&mut self, senders: &Senders) {
        for number in 0..APIS {
            let others = self.urls().into_iter().enumerate().filter(|(other, _)| *other != number);
            senders.redirect(others.map(|(_, url)| url).collect());
            self.apis[number].terminate().await;
            self.apis[number].restart().await;
            senders.redirect(self.urls());
        }
        for worker in &mut self.workers {
            worker.terminate().await;
            worker.restart().await;
        }
    }

    /// A round of faults under load; answers the acknowledged runs and the requests that they made.
    async fn round(&mut self, faults: &[Fault]) -> (usize, usize) {
        let senders = Senders::start(SENDERS, self.urls());
        for fault in faults {
            // A random moment, and a proof that the load flows again after the fault before.
            let moment = self.target.count() + self.dice.random_range(20..60);
            self.target.received_in_all(moment).await;
            println!("{fault:?}");
            self.inflict(*fault, &senders).await;
        }
        let runs = senders.stop().await;
        assert_eq!(runs.iter().collect::<HashSet<_>>().len(), runs.len(), "two deliveries were answered with one run");
        let mut requests = 0;
        for run in &runs {
            requests += self.witness.check(&self.apis[0], run, false).await;
        }
        (runs.len(), requests)
    }
}

async fn degraded(worker: &Weir) {
    let noticed = async {
        while worker.get("/health/ready").await.expect(200)["status"] != "degraded" {
            tokio::task::yield_now().await;
        }
    };
    within("Redis to be missed", noticed).await;
}

#[expect(clippy::disallowed_methods, reason = "how long this takes is for whoever starts it to say")]
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kill_matrix_loses_nothing_sticks_nothing_and_repeats_only_what_was_in_flight() {
    let count = usize::try_from(number("WEIR_CHAOS_FAULTS", FAULTS.len() as u64)).expect("fits");
    let seed = number("WEIR_CHAOS_SEED", 4711);
    println!("{count} faults, seed {seed}");
    let mut world = World::start(seed).await;
    let (mut faults, mut runs, mut requests) = (Vec::new(), 0, 0);
    while faults.len() < count {
        let mut kinds = FAULTS;
        kinds.shuffle(&mut world.dice);
        faults.extend(kinds);
    }
    faults.truncate(count);
    for round in faults.chunks(ROUND) {
        let (more, made) = world.round(round).await;
        (runs, requests) = (runs + more, requests + made);
        println!("{runs} runs, {requests} requests");
    }
    assert_eq!(world.witness.repeated(), Vec::<String>::new(), "steps were repeated after a later one began");
    // Runs that nobody was told of have come to their end too.
    for status in ["QUEUED", "RUNNING", "WAITING", "FAILED", "CANCELED"] {
        let left = async {
            loop {
                let left = world.apis[0].get(&format!("/runs?status={status}")).await.expect(200);
                if left["items"] == json!([]) || ["FAILED", "CANCELED"].contains(&status) {
                    break left;
                }
            }
        };
        assert_eq!(within(status, left).await["items"], json!([]), "{status}");
    }
    let (repeats, in_flight) = (requests - 2 * runs, faults.len() * WORKERS * RUNS_MAX);
    println!("{count} faults, {runs} runs, {requests} requests, {repeats} of them repeats");
    assert!(repeats <= in_flight, "{repeats} repeats, and at most {in_flight} steps were in flight at the faults");
}
