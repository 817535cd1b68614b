//! `weir import`: what the original system has goes on here, on both kinds of database.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::postgres::Postgres;
use weir_tests::process::{Weir, answer, run};
use weir_tests::redis::Redis;
use weir_tests::target::Target;

/// The tables as the original makes them.
const SCHEMA: &str = "
    CREATE TABLE workflows (id UUID PRIMARY KEY, tenant_id UUID, name VARCHAR NOT NULL, is_active BOOLEAN NOT NULL,
        definition_json JSONB NOT NULL, created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL);
    CREATE TABLE webhook_endpoints (id UUID PRIMARY KEY, workflow_id UUID NOT NULL REFERENCES workflows (id),
        path VARCHAR NOT NULL UNIQUE, is_active BOOLEAN NOT NULL, secret VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL,
        updated_at TIMESTAMP NOT NULL);
    CREATE TABLE runs (id UUID PRIMARY KEY, workflow_id UUID NOT NULL REFERENCES workflows (id), tenant_id UUID,
        status VARCHAR NOT NULL, triggered_by VARCHAR NOT NULL, started_at TIMESTAMP, finished_at TIMESTAMP,
        error_message TEXT, current_step_index INTEGER NOT NULL, created_at TIMESTAMP NOT NULL,
        updated_at TIMESTAMP NOT NULL);
    CREATE TABLE run_snapshots (id UUID PRIMARY KEY, run_id UUID NOT NULL REFERENCES runs (id),
        step_index INTEGER NOT NULL, snapshot_json JSONB NOT NULL, created_at TIMESTAMP NOT NULL);";

const ORDERS: &str = "f0000000-0000-4000-8000-000000000001";
const OFF: &str = "f0000000-0000-4000-8000-000000000002";
const BROKEN: &str = "f0000000-0000-4000-8000-000000000003";
const TOOL: &str = "f0000000-0000-4000-8000-000000000004";
const DONE: &str = "b0000000-0000-4000-8000-000000000001";
const FAILED: &str = "b0000000-0000-4000-8000-000000000002";
const CANCELED: &str = "b0000000-0000-4000-8000-000000000003";
const RUNNING: &str = "b0000000-0000-4000-8000-000000000004";
const MASTER_KEY: &str = "master_key=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The original's database, and somebody who may only read it.
async fn original(postgres: &Postgres, target: &Target) -> (String, String) {
    let url = postgres.database().await;
    let step = |kind: &str, mut step: Value| {
        step["type"] = kind.into();
        step["timeout_seconds"] = 30.into();
        step
    };
    let http = |method: &str, path: &str, body: Value| {
        step("http", json!({"method": method, "url": target.url(path), "headers": {}, "json_body": body}))
    };
    let orders = [
        http("POST", "/order", json!({"n": 1, "text": "{{ trigger.body.k }}"})),
        step("persist_snapshot", json!({"include_keys": null})),
        http("GET", "/after", Value::Null),
    ];
    let tool = step("mcp_tool", json!({"tool_name": "greet", "input": {"name": "Ada"}}));
    let mut sql = SCHEMA.to_owned();
    for (id, name, active, version, steps) in [
        (ORDERS, "Orders", true, "1.0", json!(orders)),
        (OFF, "Off", false, "7", json!([])),
        (BROKEN, "Broken", true, "1.0", json!([http("OPTIONS", "/", Value::Null), step("wait", json!({}))])),
        (TOOL, "Tool", true, "1.0", json!([tool])),
    ] {
        let definition = json!({"version": version, "steps": steps});
        sql += &format!(
            "INSERT INTO workflows VALUES ('{id}', NULL, '{name}', {active}, $j${definition}$j$, \
             '2024-03-01 10:00:00.123456', '2024-03-02 10:00:00');"
        );
    }
    for (n, workflow, path, active) in
        [(1, ORDERS, "orders", true), (2, ORDERS, "quiet", false), (3, BROKEN, "broken", true), (4, OFF, "taken", true)]
    {
        sql += &format!(
            "INSERT INTO webhook_endpoints VALUES ('e0000000-0000-4000-8000-00000000000{n}', '{workflow}', '{path}', \
             {active}, 'old secret {n}', '2024-03-01 11:00:00', '2024-03-01 11:00:00');"
        );
    }
    for (id, workflow, status, started, finished, message, step) in [
        (DONE, ORDERS, "SUCCEEDED", "'2024-03-05 10:00:01'", "'2024-03-05 10:00:09'", "NULL", 2),
        (FAILED, ORDERS, "FAILED", "'2024-03-05 11:00:01'", "'2024-03-05 11:00:02'", "'Connection refused'", 0),
        (CANCELED, ORDERS, "CANCELED", "NULL", "NULL", "NULL", 0),
        (RUNNING, ORDERS, "RUNNING", "'2024-03-05 12:00:01'", "NULL", "NULL", 1),
        ("b0000000-0000-4000-8000-000000000005", BROKEN, "SUCCEEDED", "NULL", "NULL", "NULL", 1),
        ("b0000000-0000-4000-8000-000000000006", TOOL, "QUEUED", "NULL", "NULL", "NULL", 0),
    ] {
        sql += &format!(
            "INSERT INTO runs VALUES ('{id}', '{workflow}', NULL, '{status}', 'webhook', {started}, {finished}, {message}, \
             {step}, '2024-03-05 10:00:00', '2024-03-05 10:00:30');"
        );
    }
    // More than are held at once, with a result that is not there.
    sql += &format!(
        "INSERT INTO runs SELECT gen_random_uuid(), '{ORDERS}', NULL, 'SUCCEEDED', 'webhook', now(), now(), NULL, 2, now(), \
         now() FROM generate_series(1, 450); \
         INSERT INTO run_snapshots SELECT gen_random_uuid(), id, 1, '{{\"step_0\": {{\"type\": \"http\", \"result\": {{\"n\": 7}}}}}}', \
         '2024-03-05 10:00:05' FROM runs WHERE status = 'SUCCEEDED' AND workflow_id = '{ORDERS}'; \
         CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"
    );
    postgres.psql(&url, &sql).await;
    let reader = url.replace("postgres://weir@", "postgresql+asyncpg://reader@");
    (url, reader)
}

/// Imports with these settings, and answers the report.
fn import(dir: &TempDir, from: &str, settings: &[&str]) -> (bool, String) {
    let mut args = vec!["import", "--from", from, "--data-dir=data"];
    args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = run(dir.path(), &args, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// How many of a kind were taken, were here already, and were not taken.
fn tally(report: &str, kind: &str) -> Vec<u64> {
    let line = report.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_else(|| panic!("{kind}: {report}"));
    line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}

#[tokio::test]
async fn everything_of_the_original_goes_on_in_an_embedded_database() {
    let postgres = Postgres::start_with(&["timezone=America/New_York"]).await;
    goes_on(&postgres, &[]).await;
}

#[tokio::test]
async fn everything_of_the_original_goes_on_in_a_cluster() {
    let (postgres, redis) = tokio::join!(Postgres::start(), Redis::start());
    let (database, redis) =
        (format!("database_url={}", postgres.database().await), format!("redis_url={}", redis.url()));
    goes_on(&postgres, &[&database, &redis, MASTER_KEY]).await;
}

async fn goes_on(postgres: &Postgres, settings: &[&str]) {
    let target = Target::start().await;
    let (url, reader) = original(postgres, &target).await;
    if !settings.is_empty() {
        postgres
            .psql(&url, "ALTER TABLE runs ALTER created_at TYPE timestamptz USING created_at AT TIME ZONE 'UTC'")
            .await;
    }
    let dir = Arc::new(TempDir::new().expect("a directory"));
    let serve = [settings, &["egress_allow=127.0.0.1"]].concat();
    let mut weir = Weir::start_in(Arc::clone(&dir), &serve, &[]).await;
    let mine = weir.workflow(&json!([])).await;
    weir.endpoint(&mine, "taken").await;
    weir.terminate().await;

    let (ok, report) = import(&dir, &reader, settings);
    assert!(ok, "{report}");
    for said in [
        &format!("taken: workflow {ORDERS} `Orders`"),
        "note: /steps/0/json is sent from now on",
        "note: /steps/0/json/text has `{{`",
        &format!("taken: workflow {OFF} `Off`, switched off as it was"),
        "note: /version was \"7\"",
        &format!("not taken: workflow {BROKEN} `Broken`"),
        "/steps/0/method must be one of",
        "/steps/1/type must be `http`",
        &format!("not taken: workflow {TOOL} `Tool`"),
        "/steps/0/tool_name no plugin of this server offers a tool named `greet`",
        "upload the plugin that is missing, and import again",
        "`broken`: its workflow was not taken",
        "`taken`: another webhook endpoint has its path here",
        &format!("not taken: run {RUNNING} of workflow {ORDERS}: it is RUNNING"),
        &format!("the runs of workflow {BROKEN} (1)"),
        &format!("the runs of workflow {TOOL} (1)"),
        "451 steps of these runs have the result null",
    ] {
        assert!(report.contains(said), "{said} is not in:\n{report}");
    }
    assert!(!report.contains("old secret"), "{report}");
    let tallies = |report: &str| ["workflows", "webhook endpoints", "runs"].map(|kind| tally(report, kind));
    assert_eq!(tallies(&report), [[2, 0, 2], [2, 0, 2], [453, 0, 3]], "{report}");

    let (ok, again) = import(&dir, &reader, settings);
    assert!(ok && again.contains("Nothing was new."), "{again}");
    assert_eq!(tallies(&again), [[0, 2, 2], [0, 2, 2], [0, 453, 3]], "{again}");
    let changed = format!(
        "UPDATE runs SET status = 'FAILED', finished_at = '2024-03-05 12:00:09' WHERE id = '{RUNNING}'; \
         UPDATE workflows SET definition_json = '{{\"version\": \"1.0\", \"steps\": []}}' WHERE id = '{ORDERS}'"
    );
    postgres.psql(&url, &changed).await;
    let (ok, rest) = import(&dir, &reader, settings);
    assert!(ok && rest.contains(&format!("left as it is: workflow {ORDERS}")), "{rest}");
    assert_eq!(tallies(&rest), [[0, 2, 2], [0, 2, 2], [1, 453, 2]], "{rest}");

    weir.restart().await;
    workflows_are_there(&weir).await;
    runs_can_be_read(&weir).await;
    work_goes_on(&weir, &target).await;
    weir.example("greet").await;
    weir.terminate().await;
    let (ok, with_plugin) = import(&dir, &reader, settings);
    assert!(ok && with_plugin.contains(&format!("taken: workflow {TOOL} `Tool`")), "{with_plugin}");
    weir.restart().await;
    let lock = &weir.get(&format!("/workflows/{TOOL}")).await.expect(200)["tool_lock"];
    assert!(lock["step_0"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{lock}");
}

async fn workflows_are_there(weir: &Weir) {
    let orders = weir.get(&format!("/workflows/{ORDERS}")).await.expect(200);
    assert_eq!(orders["created_at"], "2024-03-01T10:00:00.123456+00:00");
    assert_eq!(orders["updated_at"], "2024-03-02T10:00:00.000000+00:00");
    assert_eq!(
        (&orders["name"], &orders["is_active"], &orders["revision"]),
        (&json!("Orders"), &json!(true), &json!(1))
    );
    assert_eq!(orders["definition"]["steps"][0]["json"]["n"], 1);
    assert_eq!(orders["definition"]["steps"][1], json!({"type": "persist_snapshot", "timeout_seconds": 30}));
    assert_eq!(weir.get(&format!("/workflows/{OFF}")).await.expect(200)["is_active"], false);
    assert_eq!(weir.get(&format!("/workflows/{BROKEN}")).await.status, 404);
    let endpoints = weir.get(&format!("/workflows/{ORDERS}/webhook-endpoints")).await.expect(200);
    let active = endpoints["items"].as_array().expect("items").iter().map(|item| (&item["path"], &item["is_active"]));
    let active: Vec<_> = active.map(|(path, active)| (path.as_str(), active.as_bool())).collect();
    assert_eq!(active, [(Some("quiet"), Some(false)), (Some("orders"), Some(true))]);
}

async fn runs_can_be_read(weir: &Weir) {
    let done = weir.get(&format!("/runs/{DONE}")).await.expect(200);
    assert_eq!((&done["status"], &done["current_step_index"]), (&json!("SUCCEEDED"), &json!(3)));
    assert_eq!(done["created_at"], "2024-03-05T10:00:00.000000+00:00");
    assert_eq!(done["started_at"], "2024-03-05T10:00:01.000000+00:00");
    assert_eq!(done["finished_at"], "2024-03-05T10:00:09.000000+00:00");
    let steps = weir.steps(DONE).await;
    let told: Vec<_> = steps.iter().map(|step| (step["status"].as_str(), &step["result"])).collect();
    let (kept, keys) = (json!({"n": 7}), json!({"keys": ["step_0"]}));
    assert_eq!(told, [(Some("SUCCEEDED"), &kept), (Some("SUCCEEDED"), &keys), (Some("SUCCEEDED"), &Value::Null)]);
    let snapshots = weir.get(&format!("/runs/{DONE}/snapshots")).await.expect(200);
    assert_eq!(snapshots["items"][0]["content"], json!({"step_0": {"type": "http", "result": {"n": 7}}}));
    assert_eq!(snapshots["items"][0]["created_at"], "2024-03-05T10:00:05.000000+00:00");
    let journal = weir.get(&format!("/runs/{DONE}/journal")).await.expect(200);
    assert_eq!(journal["items"][0]["events"].as_array().map(Vec::len), Some(7), "{journal}");

    let failed = weir.get(&format!("/runs/{FAILED}")).await.expect(200);
    assert_eq!((&failed["status"], &failed["error_message"]), (&json!("FAILED"), &json!("Connection refused")));
    crate::errors::failure("imported", &failed["error"]);
    assert_eq!(weir.steps(FAILED).await[0]["error"]["code"], "imported");
    let canceled = weir.get(&format!("/runs/{CANCELED}")).await.expect(200);
    assert_eq!((&canceled["status"], &canceled["error"]), (&json!("CANCELED"), &Value::Null));
    assert_eq!(canceled["finished_at"], "2024-03-05T10:00:30.000000+00:00");
    // It ended in the original after the first import.
    assert_eq!(weir.get(&format!("/runs/{RUNNING}")).await.expect(200)["status"], "FAILED");
    let listed = weir.get(&format!("/runs?workflow_id={ORDERS}&status=FAILED")).await.expect(200);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
}

async fn work_goes_on(weir: &Weir, target: &Target) {
    let deliver = async |path: &str, secret: &str| {
        let request = weir.request(Method::POST, &format!("/webhooks/{path}")).header("x-webhook-secret", secret);
        answer(request.json(&json!({"k": "v"}))).await
    };
    assert_eq!(deliver("orders", "old secret 2").await.body["code"], "invalid_secret");
    assert_eq!(deliver("quiet", "old secret 2").await.body["code"], "endpoint_inactive");
    let run = deliver("orders", "old secret 1").await.expect(200)["run_id"].as_str().expect("a run").to_owned();
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(target.received("/order")[0].json(), json!({"n": 1, "text": "v"}));
    let redriven = weir.post(&format!("/runs/{RUNNING}/redrive"), &Value::Null).await;
    assert_eq!(redriven.status, 202, "{}", redriven.body);
    assert_eq!(weir.finished(RUNNING).await["status"], "SUCCEEDED");
    // Only the steps that were not done in the original.
    assert_eq!((target.received("/order").len(), target.received("/after").len()), (1, 2));
}

#[tokio::test]
async fn what_is_not_the_original_is_refused() {
    let (postgres, dir) = (Postgres::start().await, TempDir::new().expect("a directory"));
    let empty = postgres.database().await;
    let partial = postgres.database().await;
    postgres
        .psql(&partial, &format!("{SCHEMA} ALTER TABLE runs DROP current_step_index; DROP TABLE run_snapshots"))
        .await;
    for (from, says) in [
        ("sqlite:old.db", "begins with `postgres://`"),
        ("postgresql+asyncpg://x@127.0.0.1:1/x", "cannot be read"),
        (&empty, "there is no table `workflows`; there is no table `webhook_endpoints`"),
        (&partial, "the table `runs` has no column `current_step_index`; there is no table `run_snapshots`"),
    ] {
        let (ok, text) = import(&dir, from, &[]);
        assert!(!ok && text.contains(says), "{from}: {text}");
        assert!(!dir.path().join("data").exists(), "nothing is made before the original is known");
    }
    let whole = postgres.database().await;
    postgres.psql(&whole, SCHEMA).await;
    let (ok, text) = import(&dir, &whole, &["database_url=postgres://h/weir"]);
    assert!(!ok && text.contains("needs Redis beside it"), "{text}");
    let weir = Weir::start(&[]).await;
    let output = run(weir.dir(), &["import", "--from", &whole, "--data-dir=data"], &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("is open in another weir process"), "{text}");
}
