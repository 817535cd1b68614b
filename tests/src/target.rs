//! A real HTTP server that answers steps as a test says, and remembers everything it received.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::within;

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Received {
    /// A header as text; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

type Answering = Arc<dyn Fn(Received) -> BoxFuture<'static, Response> + Send + Sync>;

/// A target. Paths without a rule answer 200 with `{"n": <count of requests to the path>}`.
#[derive(Clone)]
pub struct Target {
    address: String,
    inner: Arc<Inner>,
}

struct Inner {
    connections: AtomicUsize,
    received: Mutex<Vec<Received>>,
    count: watch::Sender<usize>,
    answers: Mutex<HashMap<String, VecDeque<Response>>>,
    answering: Mutex<HashMap<String, Answering>>,
    held: Mutex<HashMap<String, Arc<Notify>>>,
    /// Requests that were begun and whose connection closed before the answer was given.
    abandoned: watch::Sender<usize>,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Target {
    /// Starts a target on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When there is none.
    #[expect(clippy::disallowed_methods, reason = "the server is aborted when the target is dropped")]
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let inner = Arc::new(Inner {
            connections: AtomicUsize::new(0),
            received: Mutex::default(),
            count: watch::channel(0).0,
            answers: Mutex::default(),
            answering: Mutex::default(),
            held: Mutex::default(),
            abandoned: watch::channel(0).0,
            server: Mutex::default(),
        });
        let counted = Arc::clone(&inner);
        let listener = listener.tap_io(move |_| {
            counted.connections.fetch_add(1, Ordering::SeqCst);
        });
        let router = Router::new().fallback(receive).with_state(Arc::clone(&inner));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        *inner.server.lock().unwrap() = Some(server);
        Self { address, inner }
    }

    /// Stops listening: from here on nobody is there.
    ///
    /// # Panics
    /// When somebody is there still.
    pub async fn stop(&self) {
        let server = self.inner.server.lock().unwrap().take().expect("it is stopped once");
        server.abort();
        // The listener goes with the task.
        let _ = server.await;
        assert!(tokio::net::TcpStream::connect(&self.address).await.is_err(), "somebody listens at {}", self.address);
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Gives `path` an answer for its next request; further ones follow in order.
    pub fn answer(&self, path: &str, answer: impl IntoResponse) {
        self.inner.answers.lock().unwrap().entry(path.to_owned()).or_default().push_back(answer.into_response());
    }

    /// Lets a function answer every request to `path`.
    pub fn answer_with<F, R>(&self, path: &str, answering: impl Fn(Received) -> F + Send + Sync + 'static)
    where
        F: Future<Output = R> + Send + 'static,
        R: IntoResponse,
    {
        let answering: Answering = Arc::new(move |received| {
            let answer = answering(received);
            Box::pin(async move { answer.await.into_response() })
        });
        self.inner.answering.lock().unwrap().insert(path.to_owned(), answering);
    }

    /// Makes requests to `path` wait until [`Target::release`].
    pub fn hold(&self, path: &str) {
        self.inner.held.lock().unwrap().insert(path.to_owned(), Arc::default());
    }

    /// Answers the requests that wait at `path`, and lets further ones through.
    pub fn release(&self, path: &str) {
        if let Some(held) = self.inner.held.lock().unwrap().remove(path) {
            held.notify_waiters();
        }
    }

    /// What `path` has received so far.
    #[must_use]
    pub fn received(&self, path: &str) -> Vec<Received> {
        let received = self.inner.received.lock().unwrap();
        received.iter().filter(|request| request.uri.split('?').next() == Some(path)).cloned().collect()
    }

    /// Everything received so far.
    #[must_use]
    pub fn all(&self) -> Vec<Received> {
        self.inner.received.lock().unwrap().clone()
    }

    /// How many requests have come.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.inner.count.borrow()
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests have come in all.
    pub async fn received_in_all(&self, count: usize) {
        let mut counter = self.inner.count.subscribe();
        let reached = counter.wait_for(|received| *received >= count);
        within("requests at the target", reached).await.expect("the target lives");
    }

    /// Waits until `path` has received `count` requests.
    pub async fn received_at(&self, path: &str, count: usize) {
        let mut counter = self.inner.count.subscribe();
        let reached = counter.wait_for(|_| self.received(path).len() >= count);
        within(path, reached).await.expect("the target lives");
    }

    /// Waits until so many callers have gone away before they were answered.
    pub async fn abandoned(&self, count: usize) {
        let mut counter = self.inner.abandoned.subscribe();
        within("callers that go away", counter.wait_for(|abandoned| *abandoned >= count)).await.expect("lives");
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
    }
}

/// Counts a request whose answer nobody waited for.
struct Waiting<'a>(&'a Inner, bool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.abandoned.send_modify(|abandoned| *abandoned += 1);
        }
    }
}

async fn receive(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let received = Received { method, uri: uri.to_string(), headers, body };
    let nth = {
        let mut all = inner.received.lock().unwrap();
        all.push(received.clone());
        all.iter().filter(|request| request.uri.split('?').next() == Some(&path)).count()
    };
    inner.count.send_modify(|count| *count += 1);
    let mut waiting = Waiting(&inner, false);
    let held = inner.held.lock().unwrap().get(&path).cloned();
    if let Some(held) = held {
        let released = held.notified();
        tokio::pin!(released);
        released.as_mut().enable();
        // Released in between: then the rule is gone.
        if inner.held.lock().unwrap().contains_key(&path) {
            released.await;
        }
    }
    let answering = inner.answering.lock().unwrap().get(&path).cloned();
    let planned = inner.answers.lock().unwrap().get_mut(&path).and_then(VecDeque::pop_front);
    let response = match (planned, answering) {
        (Some(planned), _) => planned,
        (None, Some(answering)) => answering(received).await,
        (None, None) => (StatusCode::OK, axum::Json(json!({ "n": nth }))).into_response(),
    };
    waiting.1 = true;
    response
}
