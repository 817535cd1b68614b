//! A full disk, a second process, and copies: what happens to the file that everything is in.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::process::{Weir, answer, run};
use weir_tests::target::Target;

/// A command that gives the process a small disk of its own, mounted at `data` in the current directory.
///
/// A disk that is really full needs a file system; a mount namespace gives one to a single process.
fn small_disk() -> Vec<&'static str> {
    const MOUNT: &str = "mkdir -p data && mount -t tmpfs -o size=8m weir data && exec \"$0\" \"$@\"";
    let as_root: &[&str] = &["unshare", "--mount"];
    let as_user: &[&str] = &["unshare", "--user", "--map-root-user", "--mount"];
    for unshare in [as_root, as_user] {
        let dir = TempDir::new().expect("a directory");
        let mut probe = Command::new(unshare[0]);
        probe.args(&unshare[1..]).args(["sh", "-c", MOUNT, "true"]).current_dir(dir.path());
        if probe.output().expect("util-linux has unshare").status.success() {
            return [unshare, &["sh", "-c", MOUNT]].concat();
        }
    }
    panic!(
        "this test mounts a small tmpfs in a mount namespace of its own, and this machine lets neither root nor users do so"
    );
}

#[tokio::test]
async fn on_a_full_disk_the_door_says_so_runs_wait_and_all_goes_on_when_there_is_room() {
    let (dir, target) = (Arc::new(TempDir::new().expect("a directory")), Target::start().await);
    let weir = Weir::start_in(dir, &["egress_allow=127.0.0.1"], &small_disk()).await;
    target.hold("/slow");
    let steps = json!([
        {"type": "http", "name": "slow", "url": target.url("/slow")},
        {"type": "http", "name": "next", "url": target.url("/next")},
    ]);
    let workflow = weir.workflow(&steps).await;
    weir.endpoint(&workflow, "hook").await;
    let under_way = weir.run(&workflow, &Value::Null).await;
    target.received_at("/slow", 1).await;

    // The disk as the process sees it.
    let data = PathBuf::from(format!("/proc/{}/cwd/data", weir.pid()));
    let ballast = data.join("ballast");
    let full = std::fs::write(&ballast, vec![0_u8; 64 << 20]).expect_err("the disk is smaller than that");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    let deliver = async |id: &str| {
        let request = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret");
        // Larger than any room that is left in a page.
        answer(request.header("webhook-id", id).body("x".repeat(200_000))).await
    };
    let refused = deliver("d-1").await;
    insta::assert_snapshot!("unavailable", refused.shape(&[]));
    // What can be read can still be read, and the attempt that ends now cannot be written: it waits.
    target.release("/slow");
    weir.line_with("the append has to wait").await;
    assert_eq!(weir.get(&format!("/runs/{under_way}")).await.expect(200)["status"], "RUNNING");
    assert_eq!(target.received("/next").len(), 0);

    std::fs::remove_file(&ballast).expect("removed");
    let finished = weir.finished(&under_way).await;
    assert_eq!(finished["status"], "SUCCEEDED");
    assert_eq!((target.received("/slow").len(), target.received("/next").len()), (1, 1));
    let accepted = deliver("d-1").await.expect(200);
    assert_eq!(weir.finished(accepted["run_id"].as_str().expect("a run")).await["status"], "SUCCEEDED");
    let runs = weir.get("/runs").await.expect(200);
    assert_eq!(runs["items"].as_array().expect("items").len(), 2, "the refused delivery left something behind");
}

#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused_with_a_clear_message() {
    let weir = Weir::start(&[]).await;
    for command in ["serve", "migrate"] {
        let second = run(weir.dir(), &[command, "--data-dir=data", "--set=listen=127.0.0.1:0"], &[]);
        let message = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(!second.status.success());
        let expected = format!("is open in another weir process (pid {})", weir.pid());
        assert!(message.contains(&expected), "{message}");
    }
    assert_eq!(weir.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_backup_of_a_working_server_can_be_started_from() {
    let (mut weir, target) = (Weir::start(&[]).await, Target::start().await);
    target.hold("/slow");
    let workflow = weir.workflow(&json!([{"type": "http", "url": target.url("/slow")}])).await;
    weir.endpoint(&workflow, "hook").await;
    let started = weir.run(&workflow, &Value::Null).await;
    target.received_at("/slow", 1).await;
    let backup = run(weir.dir(), &["backup", "copy.db", "--data-dir=data"], &[]);
    let said = String::from_utf8_lossy(&backup.stdout).into_owned();
    assert!(
        backup.status.success() && said.contains("weir.key") && said.contains("of endpoints and of requests"),
        "{said} {backup:?}"
    );
    let again = run(weir.dir(), &["backup", "copy.db", "--data-dir=data"], &[]);
    assert!(!again.status.success(), "a backup never overwrites");
    weir.kill();
    let data = weir.dir().join("data");
    for file in ["weir.db", "weir.db-wal", "weir.db-shm"] {
        std::fs::remove_file(data.join(file)).expect("removed");
    }
    std::fs::rename(weir.dir().join("copy.db"), data.join("weir.db")).expect("restored");
    target.release("/slow");
    weir.restart().await;
    assert_eq!(weir.finished(&started).await["status"], "SUCCEEDED");
    let request = weir.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret");
    assert_eq!(answer(request).await.status, 200);
}
