//! Load that notices everything: senders that repeat each delivery until it is acknowledged, and a witness at the target
//! that knows which step of which run was performed how often, with which body, and in which order.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::process::Weir;
use crate::target::{Received, Target};

/// How long a sender waits before it repeats a delivery that was not acknowledged.
const PAUSE: Duration = Duration::from_millis(20);

/// Senders at work.
pub struct Senders {
    urls: watch::Sender<Vec<String>>,
    stop: watch::Sender<bool>,
    refused: watch::Sender<usize>,
    tasks: JoinSet<Vec<String>>,
}

impl Senders {
    /// Starts `count` senders, who deliver to the webhook `load` at one of `urls`.
    #[must_use]
    pub fn start(count: usize, urls: Vec<String>) -> Self {
        let (urls, stop, refused) = (watch::channel(urls).0, watch::channel(false).0, watch::channel(0).0);
        let (mut tasks, round) = (JoinSet::new(), rand::rng().random());
        for number in 0..count {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let sender = Sender { round, number, client, urls: urls.subscribe(), refused: refused.clone() };
            tasks.spawn(sender.send(stop.subscribe()));
        }
        Self { urls, stop, refused, tasks }
    }

    /// Says where the servers are now.
    pub fn redirect(&self, urls: Vec<String>) {
        self.urls.send_replace(urls);
    }

    /// How many requests were answered with something else than an acknowledgement, so far. Broken connections count.
    #[must_use]
    pub fn refused(&self) -> watch::Receiver<usize> {
        self.refused.subscribe()
    }

    /// Stops the senders and answers the runs that were acknowledged.
    ///
    /// # Panics
    /// When a sender panicked.
    pub async fn stop(self) -> Vec<String> {
        self.stop.send_replace(true);
        self.tasks.join_all().await.concat()
    }
}

struct Sender {
    /// No other senders' deliveries may be taken for repeats of these.
    round: u64,
    number: usize,
    client: reqwest::Client,
    urls: watch::Receiver<Vec<String>>,
    refused: watch::Sender<usize>,
}

impl Sender {
    async fn send(self, mut stop: watch::Receiver<bool>) -> Vec<String> {
        let mut runs = Vec::new();
        for delivery in 0.. {
            let mut tries = 0;
            loop {
                if let Some(run) = self.deliver(delivery, tries).await {
                    runs.push(run);
                    break;
                }
                self.refused.send_modify(|refused| *refused += 1);
                tries += 1;
                // A delivery that nobody acknowledged may be given up; whether it became a run is not known.
                if *stop.borrow() {
                    return runs;
                }
                let _ = tokio::time::timeout(PAUSE, stop.changed()).await;
            }
            if *stop.borrow() {
                break;
            }
        }
        runs
    }

    async fn deliver(&self, delivery: usize, tries: usize) -> Option<String> {
        let url = {
            let urls = self.urls.borrow();
            urls[(self.number + delivery + tries) % urls.len()].clone()
        };
        let request = self
            .client
            .post(format!("{url}/webhooks/load"))
            .header("x-webhook-secret", "s3cret")
            .header("webhook-id", format!("{}-{}-{delivery}", self.round, self.number))
            .json(&json!({"sender": self.number, "delivery": delivery}));
        let answer: Value = request.send().await.ok()?.json().await.ok()?;
        answer["run_id"].as_str().map(str::to_owned)
    }
}

/// What the target knows of one step of one run.
#[derive(Default)]
struct Seen {
    bodies: HashSet<String>,
    requests: usize,
}

/// A target that remembers every request by its idempotency key.
#[derive(Clone, Default)]
pub struct Witness {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    repeated: Arc<Mutex<Vec<String>>>,
}

impl Witness {
    /// Lets the witness answer at `target`, and answers the steps of a workflow that it can judge. Every attempt gets
    /// another answer: whoever starts the second step too early is found out by its body.
    #[must_use]
    pub fn watch(target: &Target) -> (Self, Value) {
        let witness = Self::default();
        for path in ["/one", "/two"] {
            let witness = witness.clone();
            target.answer_with(path, move |received| {
                let nth = witness.note(&received);
                async move { axum::Json(json!({ "nth": nth })) }
            });
        }
        let steps = json!([
            {"type": "http", "name": "one", "method": "POST", "url": target.url("/one"), "json": "{{ trigger.body }}"},
            {"type": "http", "name": "two", "method": "POST", "url": target.url("/two"),
             "json": {"first": "{{ steps.one.result.nth }}"}},
            {"type": "persist_snapshot", "name": "kept"},
        ]);
        (witness, steps)
    }

    /// Notes a request and answers how many have come under its key.
    fn note(&self, received: &Received) -> usize {
        let key = received.header("idempotency-key").to_owned();
        let mut seen = self.seen.lock().unwrap();
        // The second step is only performed when the outcome of the first is on disk.
        if let Some(run) = key.strip_suffix(":one")
            && seen.contains_key(&format!("{run}:two"))
        {
            self.repeated.lock().unwrap().push(key.clone());
        }
        let step = seen.entry(key).or_default();
        step.requests += 1;
        step.bodies.insert(String::from_utf8_lossy(&received.body).into_owned());
        step.requests
    }

    fn take(&self, run: &str, step: &str) -> Seen {
        self.seen.lock().unwrap().remove(&format!("{run}:{step}")).expect("it was performed")
    }

    /// Steps that were performed although a later one had begun.
    #[must_use]
    pub fn repeated(&self) -> Vec<String> {
        self.repeated.lock().unwrap().clone()
    }

    /// Checks a run against what was seen, and answers how many requests it made. With `notes_survive` every request
    /// must stand in the journal; a database that crashes may forget that an attempt began.
    ///
    /// # Panics
    /// When the run does not end, or not as it must.
    pub async fn check(&self, weir: &Weir, run: &str, notes_survive: bool) -> usize {
        let finished = weir.finished(run).await;
        assert_eq!(finished["status"], "SUCCEEDED", "{finished}");
        let steps = weir.steps(run).await;
        let recorded = steps[0]["result"]["nth"].as_u64().expect("a result");
        let (one, two) = (self.take(run, "one"), self.take(run, "two"));
        assert!(recorded <= one.requests as u64, "{run} recorded an answer that was never given");
        // All attempts of a step say the same, and what the recorded outcome before it says.
        assert_eq!(two.bodies, HashSet::from([json!({ "first": recorded }).to_string()]), "{run}");
        assert_eq!(one.bodies.len(), 1, "{run}");
        if notes_survive {
            for (step, requests) in [(&steps[0], one.requests), (&steps[1], two.requests)] {
                let attempts = usize::try_from(step["attempts"].as_u64().expect("a number")).expect("fits");
                assert!(requests <= attempts, "{run}: {requests} requests in {attempts} attempts");
            }
        }
        let journal = weir.get(&format!("/runs/{run}/journal?limit=100")).await.expect(200);
        let events = |name: &str| journal.to_string().matches(&format!("\"event\":\"{name}\"")).count();
        assert_eq!((events("finished"), events("completed"), events("failed")), (1, 3, 0), "{journal}");
        // What was performed again was in flight when somebody lost the run, each time.
        assert_eq!(events("attempted"), 2 + events("interrupted"), "{journal}");
        one.requests + two.requests
    }
}
