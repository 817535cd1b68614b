//! What servers of other people have in common: started with a log that is read, on a port that nobody else gets, and ended
//! with the process that started them.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rand::RngExt as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{oneshot, watch};

use crate::within;

/// Runs a program to its end and answers what it printed. A thread waits for it, as long as it lives.
pub(crate) async fn output(mut command: Command) -> String {
    let program = command.get_program().to_owned();
    let output = tokio::task::spawn_blocking(move || (command.stdin(Stdio::null()).output(), command));
    let (output, command) = output.await.expect("a thread");
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout.trim_end().to_owned()
}

/// A port that is free now. It is below those that the kernel gives to connections and to listeners that ask for any,
/// so nobody gets it while the server is stopped.
pub(crate) fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports = std::iter::repeat_with(|| rand::rng().random_range(10_000..32_000));
    ports.take(1000).find(free).expect("a free port")
}

/// The files that [`make_certificate`] makes.
pub(crate) const CERTIFICATE: &str = "certificate.pem";
pub(crate) const KEY: &str = "key.pem";

/// Makes a certificate for 127.0.0.1 and localhost that signed itself, and its key, as files in `dir`. It is nobody's
/// authority, since some clients want that of a server.
pub(crate) async fn make_certificate(dir: &Path) {
    const REQUEST: &str = "[req]\nprompt=no\ndistinguished_name=name\nx509_extensions=extensions\n\
        [name]\nCN=localhost\n[extensions]\nbasicConstraints=critical,CA:FALSE\n\
        subjectAltName=IP:127.0.0.1,DNS:localhost\n";
    std::fs::write(dir.join("openssl.cnf"), REQUEST).expect("written");
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(["req", "-x509", "-config", "openssl.cnf", "-days", "2", "-nodes"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", KEY, "-out", CERTIFICATE]);
    output(command).await;
}

/// A server's first process and its log. The thread that reads the log starts the process too: it lives until every process
/// of the server has closed the log, so the kernel kills none before this process ends.
pub(crate) struct Running {
    name: &'static str,
    /// What ends it at once when it is not needed any more.
    last: Signal,
    pub(crate) child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

impl Running {
    /// Starts the server called `name`; the signal `last` ends it at once.
    pub(crate) async fn start(name: &'static str, last: Signal, mut command: Command) -> Self {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (counter, count) = watch::channel(0);
        let (started, child) = oneshot::channel();
        let log = Arc::clone(&lines);
        std::thread::spawn(move || {
            let (log_end, server_end) = std::io::pipe().expect("a pipe");
            command.stdin(Stdio::null()).stdout(server_end.try_clone().expect("a pipe")).stderr(server_end);
            let child = command.spawn().expect("setpriv starts");
            // It holds the server's end of the pipe.
            drop(command);
            // Nobody waits for it any more: it ends with this process.
            let _ = started.send(child);
            for line in BufReader::new(log_end).split(b'\n').map_while(Result::ok) {
                log.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
                counter.send_modify(|count| *count += 1);
            }
        });
        Self { name, last, child: child.await.expect("started"), lines, count }
    }

    /// Waits for a log line that contains `text`; false when the server ends without one.
    pub(crate) async fn says(&self, text: &str) -> bool {
        let mut count = self.count.clone();
        let said = count.wait_for(|_| self.lines.lock().unwrap().iter().any(|line| line.contains(text)));
        within(text, said).await.is_ok()
    }

    /// Waits for the end of the server: the end of its log.
    pub(crate) async fn ended(&mut self) {
        let mut count = self.count.clone();
        within(self.name, async { while count.changed().await.is_ok() {} }).await;
        self.child.wait().expect("ended");
    }

    /// The last log lines.
    pub(crate) fn tail(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_process(Pid::from_child(&self.child), signal).expect("signalled");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(self.last);
        // A test may have halted it.
        self.signal(Signal::CONT);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the last lines of {} ---\n{}", self.name, self.tail());
        }
    }
}
