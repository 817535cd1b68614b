//! Real `weir` processes: started, asked, killed and started again on the same directory.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::within;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Tries another program than the one that was built with the tests. Only the first call counts.
pub fn use_binary(path: PathBuf) {
    let _ = BINARY.set(path);
}

/// The binary under test: built by the same cargo command into the same target directory.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = BINARY.get() {
        return path.clone();
    }
    let test = std::env::current_exe().expect("the test has a path");
    let path = test.parent().and_then(Path::parent).expect("target directory").join("weir");
    assert!(path.exists(), "{} is missing: `make test` builds it first (cargo build -p weir)", path.display());
    path
}

/// Runs `weir` with `args` in `dir` to its end, with nothing of this environment but the path.
///
/// # Panics
/// When the process cannot be started.
#[must_use]
pub fn run(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).current_dir(dir).env_clear().envs(env.iter().copied());
    command.output().expect("weir runs")
}

/// A server and the directory it works in.
pub struct Weir {
    dir: Arc<TempDir>,
    settings: Vec<String>,
    wrapper: Vec<String>,
    child: Child,
    address: String,
    lines: Lines,
    client: reqwest::Client,
}

#[derive(Clone)]
struct Lines {
    all: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: reqwest::header::HeaderMap,
    /// Its body; null where there is none, a string where it is not JSON.
    pub body: Value,
}

impl Answer {
    /// A text member of the body.
    ///
    /// # Panics
    /// When there is no such text.
    #[must_use]
    pub fn text(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("no text `{member}` in {}", self.body)).to_owned()
    }

    /// The body, of an answer that is text.
    ///
    /// # Panics
    /// When it is JSON.
    #[must_use]
    pub fn text_body(&self) -> String {
        self.body.as_str().unwrap_or_else(|| panic!("no text: {}", self.body)).to_owned()
    }

    /// A refusal as text, without what differs from call to call; `known` gives names to ids.
    ///
    /// # Panics
    /// When a header is no text.
    #[must_use]
    pub fn shape(&self, known: &[(&str, &str)]) -> String {
        let mut body = self.body.clone();
        body["request_id"] = json!("[id]");
        let mut text = format!("{}\n", self.status);
        for name in ["content-type", "allow", "retry-after", "location"] {
            if let Some(value) = self.headers.get(name) {
                text += &format!("{name}: {}\n", value.to_str().expect("text"));
            }
        }
        text += &format!("{body:#}");
        known.iter().fold(text, |text, (value, name)| text.replace(value, name))
    }

    /// The body, of an answer that must have this status.
    ///
    /// # Panics
    /// When it has another one.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

impl Weir {
    /// Starts a server in a fresh directory, with loopback opened for http steps.
    pub async fn start(settings: &[&str]) -> Self {
        let mut all = vec!["egress_allow=127.0.0.1"];
        all.extend(settings);
        Self::start_in(Arc::new(TempDir::new().expect("a directory")), &all, &[]).await
    }

    /// Starts a server in `dir`; `wrapper` is a command that execs what follows it.
    pub async fn start_in(dir: Arc<TempDir>, settings: &[&str], wrapper: &[&str]) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (settings, wrapper) = (owned(settings), owned(wrapper));
        let (child, lines) = spawn(&dir, &settings, &wrapper);
        // Another test of this process may have done it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut weir = Self { dir, settings, wrapper, child, address: String::new(), lines, client };
        weir.wait_until_listening().await;
        weir
    }

    async fn wait_until_listening(&mut self) {
        let line = self.line_with("\"address\"").await;
        let line: Value = serde_json::from_str(&line).expect("a JSON line");
        self.address = line["address"].as_str().expect("an address").to_owned();
    }

    /// Waits for a log line that contains `text`.
    ///
    /// # Panics
    /// When the process ends without one.
    pub async fn line_with(&self, text: &str) -> String {
        let mut count = self.lines.count.clone();
        within(text, async {
            loop {
                count.borrow_and_update();
                if let Some(line) = self.log().into_iter().find(|line| line.contains(text)) {
                    return line;
                }
                assert!(count.changed().await.is_ok(), "weir ended without `{text}`: {:#?}", self.log());
            }
        })
        .await
    }

    /// Every log line so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.lines.all.lock().unwrap().clone()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory it works in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Waits for the end of a process that somebody else kills.
    pub async fn ended(&mut self) {
        let mut count = self.lines.count.clone();
        // The end of its log is the end of the process.
        within("the end of weir", async { while count.changed().await.is_ok() {} }).await;
        self.child.wait().expect("ended");
    }

    /// SIGTERM, and waits for its end, which must be a clean one.
    pub async fn terminate(&mut self) {
        self.signal(Signal::TERM);
        self.ended().await;
        let status = self.child.wait().expect("ended");
        assert!(status.success(), "{status}: {:#?}", self.log());
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("signalled");
    }

    /// Starts the server again on the same directory, without waiting for it.
    pub fn respawn(&mut self) {
        (self.child, self.lines) = spawn(&self.dir, &self.settings, &self.wrapper);
    }

    /// Starts the server again on the same directory.
    pub async fn restart(&mut self) {
        self.respawn();
        self.wait_until_listening().await;
    }

    /// Adds a setting for the next start.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request to a path.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// GETs a path.
    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    /// POSTs JSON to a path.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// Creates a workflow with these steps and answers its id.
    pub async fn workflow(&self, steps: &Value) -> String {
        let body = json!({"name": "test", "definition": crate::definition(steps)});
        let created = self.post("/workflows/", &body).await;
        assert_eq!(created.status, StatusCode::OK, "{}", created.body);
        created.text("id")
    }

    /// Uploads a plugin.
    pub async fn upload(&self, plugin: Vec<u8>) -> Answer {
        let request = self.request(Method::POST, "/plugins").header("content-type", "application/wasm");
        answer(request.body(plugin)).await
    }

    /// Uploads an example plugin.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn example(&self, name: &str) -> Value {
        let uploaded = self.upload(crate::plugin::bytes(name)).await;
        assert_eq!(uploaded.status, StatusCode::CREATED, "{}", uploaded.body);
        uploaded.body
    }

    /// Registers a webhook endpoint with the secret `s3cret`.
    pub async fn endpoint(&self, workflow: &str, path: &str) -> String {
        let body = json!({"path": path, "secret": "s3cret"});
        let created = self.post(&format!("/workflows/{workflow}/webhook-endpoints"), &body).await;
        assert_eq!(created.status, StatusCode::OK, "{}", created.body);
        created.text("id")
    }

    /// Starts a run and answers its id.
    pub async fn run(&self, workflow: &str, input: &Value) -> String {
        let started = self.post(&format!("/workflows/{workflow}/runs"), &json!({"input": input})).await;
        assert_eq!(started.status, StatusCode::ACCEPTED, "{}", started.body);
        started.text("run_id")
    }

    /// Waits for the end of a run and answers it.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn finished(&self, run: &str) -> Value {
        within(&format!("the end of run {run}"), async {
            loop {
                let answer = self.get(&format!("/runs/{run}?wait=30s")).await.expect(200);
                if !answer["finished_at"].is_null() {
                    return answer;
                }
            }
        })
        .await
    }

    /// Waits until the tool of a step asks something, and answers the questions.
    ///
    /// # Panics
    /// When it does not ask.
    pub async fn asked(&self, run: &str, step: &str) -> Vec<Value> {
        within(&format!("questions of the step {step}"), async {
            loop {
                let steps = self.steps(run).await;
                let asking =
                    steps.iter().find(|known| known["path"] == step).and_then(|known| known["questions"].as_array());
                if let Some(questions) = asking {
                    return questions.clone();
                }
            }
        })
        .await
    }

    /// The steps of a run.
    pub async fn steps(&self, run: &str) -> Vec<Value> {
        let steps = self.get(&format!("/runs/{run}/steps")).await.expect(200);
        steps["items"].as_array().expect("items").clone()
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = &log[log.len().saturating_sub(40)..];
            eprintln!("--- the last lines of weir ---\n{}", tail.join("\n"));
        }
    }
}

/// Sends a request and reads its answer.
///
/// # Panics
/// When there is no answer.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) };
    Answer { status, headers, body }
}

fn spawn(dir: &TempDir, settings: &[String], wrapper: &[String]) -> (Child, Lines) {
    let binary = binary().display().to_string();
    let mut words: Vec<String> = wrapper.to_vec();
    words.extend([binary, "serve".to_owned(), "--data-dir=data".to_owned()]);
    words.extend(["--set=log_format=json", "--set=listen=127.0.0.1:0"].map(str::to_owned));
    words.extend(settings.iter().map(|setting| format!("--set={setting}")));
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("weir starts");
    let all = Arc::new(Mutex::new(Vec::new()));
    let (counter, count) = watch::channel(0);
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let lines = Arc::clone(&all);
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
            counter.send_modify(|count| *count += 1);
        }
    });
    (child, Lines { all, count })
}
