//! `weir copy`: a database goes from SQLite to Postgres and back, and answers the same.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::postgres::Postgres;
use weir_tests::process::{Weir, answer, run};
use weir_tests::redis::Redis;
use weir_tests::target::Target;

fn copy(dir: &TempDir, from: &str, to: &str) -> (bool, String) {
    let output = run(dir.path(), &["copy", "--from", from, "--to", to, "--data-dir=data"], &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// Everything that the API tells of these.
async fn told(weir: &Weir, workflow: &str, runs: &[&str]) -> Vec<Value> {
    let mut paths: Vec<String> = ["/workflows", "/runs", "/plugins"].into_iter().map(str::to_owned).collect();
    paths.extend(["", "/revisions", "/webhook-endpoints"].map(|part| format!("/workflows/{workflow}{part}")));
    for run in runs {
        paths.extend(["", "/steps", "/journal", "/snapshots"].map(|part| format!("/runs/{run}{part}")));
    }
    let mut told = Vec::new();
    for path in paths {
        told.push(weir.get(&path).await.expect(200));
    }
    told
}

#[tokio::test]
async fn a_copy_of_a_copy_answers_as_the_first() {
    let (postgres, redis, target) = tokio::join!(Postgres::start(), Redis::start(), Target::start());
    target.hold("/slow");
    let dir = Arc::new(TempDir::new().expect("a directory"));
    let mut weir = Weir::start_in(Arc::clone(&dir), &["egress_allow=127.0.0.1"], &[]).await;
    let (author, greet) = (crate::signing::Author::new(), weir_tests::plugin::bytes("greet"));
    weir.set(&format!("plugin_trusted_keys={}", author.public));
    weir.kill();
    weir.restart().await;
    let signed = crate::signing::upload(&weir, greet.clone(), &author.sign(&greet)).await.expect(201);
    assert_eq!(signed["signed_by"], author.public);
    let steps = json!([{"type": "http", "url": target.url("/a")}, {"type": "persist_snapshot"},
        {"type": "mcp_tool", "tool_name": "greet", "input": {"name": "Ada"}}]);
    let workflow = weir.workflow(&steps).await;
    weir.endpoint(&workflow, "hook").await;
    let done = weir.run(&workflow, &json!({"text": "a \u{0} character"})).await;
    assert_eq!(weir.finished(&done).await["status"], "SUCCEEDED");
    let slow = weir_tests::definition(&json!([{"type": "http", "url": target.url("/slow")}]));
    let revised = json!({"name": "revised", "definition": slow});
    answer(weir.request(Method::PUT, &format!("/workflows/{workflow}")).json(&revised)).await.expect(200);
    let open = weir.run(&workflow, &Value::Null).await;
    target.received_at("/slow", 1).await;
    // Its claim stays in the database.
    weir.kill();
    target.release("/slow");
    let database = postgres.database().await;

    let (ok, text) = copy(&dir, "sqlite:weir.db", &database);
    assert!(ok && text.contains("Every table of the copy has as many rows"), "{text}");
    assert!(text.contains("master key"), "{text}");
    let claims = "SELECT count(*) FROM runs WHERE claim IS NOT NULL OR lease_until IS NOT NULL";
    assert_eq!(postgres.psql(&database, claims).await, "0");
    let (ok, text) = copy(&dir, "sqlite:weir.db", &database);
    assert!(!ok && text.contains("the target is not empty: its table `workflows` has rows"), "{text}");

    // The run that was under way goes on in the copy.
    let settings = [format!("database_url={database}"), format!("redis_url={}", redis.url())];
    let mut settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    settings.push("egress_allow=127.0.0.1");
    let mut cluster = Weir::start_in(Arc::clone(&dir), &settings, &[]).await;
    assert_eq!(cluster.finished(&open).await["status"], "SUCCEEDED");
    let first = told(&cluster, &workflow, &[&done, &open]).await;
    cluster.terminate().await;

    let (ok, text) = copy(&dir, &database, "sqlite:back.db");
    assert!(ok, "{text}");
    let back = Weir::start_in(Arc::clone(&dir), &["database_url=sqlite:back.db"], &[]).await;
    assert_eq!(told(&back, &workflow, &[&done, &open]).await, first);
    let delivered = answer(back.request(Method::POST, "/webhooks/hook").header("x-webhook-secret", "s3cret")).await;
    assert_eq!(delivered.status, 200, "{}", delivered.body);
    let (ok, text) = copy(&dir, "sqlite:back.db", "sqlite:third.db");
    assert!(!ok && text.contains("the source: ") && text.contains("is open in another weir process"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused() {
    let (postgres, dir) = (Postgres::start().await, TempDir::new().expect("a directory"));
    let empty = postgres.database().await;
    for (from, to, says) in [
        ("sqlite:none.db", "sqlite:to.db", "none.db: No such file"),
        ("sqlite:a.db", "sqlite:a.db", "name the same database"),
        ("mysql://x", "sqlite:to.db", "--from begins with `mysql:`"),
        ("sqlite:a.db", "redis://x", "--to begins with `redis:`"),
        (&empty, "sqlite:to.db", "the source: the database holds no tables of Weir"),
    ] {
        let (ok, text) = copy(&dir, from, to);
        assert!(!ok && text.contains(says), "{from} {to}: {text}");
        assert!(!dir.path().join("data/to.db").exists());
    }
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(postgres.psql(&empty, tables).await, "0");
}

#[tokio::test]
async fn a_copy_that_fails_leaves_nothing() {
    let (postgres, dir) = (Postgres::start().await, TempDir::new().expect("a directory"));
    let (source, target) = tokio::join!(postgres.database(), postgres.database());
    let env = [("DATABASE_URL", source.as_str()), ("REDIS_URL", "redis://127.0.0.1:1")];
    assert!(run(dir.path(), &["migrate"], &env).status.success());
    // More rows than are held at once.
    let many = "INSERT INTO workflows SELECT gen_random_uuid(), 'many', TRUE, 1, 0, 0 FROM generate_series(1, 1100); \
                INSERT INTO revisions SELECT id, 1, 'many', '{}', 0 FROM workflows";
    postgres.psql(&source, many).await;
    let (ok, text) = copy(&dir, &source, &target);
    assert!(ok && text.contains("workflows                1100 rows"), "{text}");

    let refusing = "DELETE FROM revisions; DELETE FROM workflows; ALTER TABLE revisions ADD CHECK (number < 2)";
    postgres.psql(&target, refusing).await;
    let last = "UPDATE revisions SET number = 3 WHERE workflow_id = (SELECT max(id::text)::uuid FROM workflows)";
    postgres.psql(&source, last).await;
    let (ok, text) = copy(&dir, &source, &target);
    assert!(!ok && text.contains("the target is as it was: the table `revisions`: "), "{text}");
    let left = "SELECT (SELECT count(*) FROM workflows), (SELECT count(*) FROM revisions)";
    assert_eq!(postgres.psql(&target, left).await, "0|0");

    postgres.psql(&source, "INSERT INTO _sqlx_migrations SELECT 9999, 'later', now(), TRUE, '', 0").await;
    let (ok, text) = copy(&dir, &source, &target);
    assert!(!ok && text.contains("newer than this version"), "{text}");
}
