//! Tools that ask: the run waits, durably and without taking anything, and goes on with the answers.

use serde_json::{Value, json};
use weir::engine::Drove;
use weir::model::ask::{Answer as Given, AnswerAction};
use weir::model::path::StepPath;
use weir::model::state::Phase;
use weir_tests::cluster::Cluster;
use weir_tests::process::{Answer, Weir};
use weir_tests::within;

use crate::crash::{LEASE, Scene, Script, Stage};
use crate::frozen;

fn ask(more: &Value) -> Value {
    let mut step =
        json!({"type": "mcp_tool", "name": "ask", "tool_name": "approve", "input": {"question": "Deploy 7?"}});
    for (name, value) in more.as_object().expect("members") {
        step[name] = value.clone();
    }
    json!([step, {"type": "persist_snapshot", "name": "kept", "if": "steps.ask.result.approved"}])
}

async fn asking(weir: &Weir, more: &Value) -> String {
    let run = weir.run(&weir.workflow(&ask(more)).await, &Value::Null).await;
    weir.asked(&run, "ask").await;
    run
}

async fn give(weir: &Weir, run: &str, answer: &Value) -> Answer {
    weir.post(&format!("/runs/{run}/answers"), answer).await
}

fn accept(key: &str, content: &Value) -> Value {
    json!({"step": "ask", "key": key, "action": "accept", "content": content})
}

fn yes() -> Value {
    accept("approval", &json!({"approved": true, "comment": "after lunch"}))
}

/// Waits until nobody drives the run, whatever died meanwhile: it takes nothing then.
async fn is_waiting(weir: &Weir, run: &str) {
    within(&format!("run {run} to wait"), async {
        while weir.get(&format!("/runs/{run}")).await.expect(200)["status"] != "WAITING" {}
    })
    .await;
}

#[tokio::test]
async fn a_question_is_shown_answered_once_and_the_run_goes_on() {
    let weir = Weir::start(&[]).await;
    weir.example("approve").await;
    let run = asking(&weir, &json!({})).await;
    let step = weir.steps(&run).await[0].clone();
    assert_eq!((&step["status"], &step["result"], &step["attempts"]), (&json!("WAITING"), &Value::Null, &json!(1)));
    assert!(step["used"]["fuel"].as_u64() > Some(1000), "{step}");
    let question = &step["questions"][0];
    assert_eq!((&question["key"], &question["mode"]), (&json!("approval"), &json!("form")));
    assert_eq!((&question["message"], &question["answered"]), (&json!("Deploy 7?"), &json!(false)));
    assert_eq!((&question["answer_by"], &question["url"]), (&Value::Null, &Value::Null));
    let fields = question["schema"]["properties"].as_object().expect("fields");
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["approved", "comment"]);

    // What does not fit is refused with its place, and nothing is changed.
    for (wrong, pointer) in [
        (accept("approval", &json!({"approved": "yes", "comment": ""})), "/content/approved"),
        (accept("approval", &json!({"approved": true, "comment": "", "sure": 1})), "/content/sure"),
        (accept("approval", &json!({"approved": true, "comment": "x".repeat(70_000)})), "/content"),
        (json!({"step": "ask", "key": "approval", "action": "accept"}), "/content"),
        (json!({"step": "ask", "key": "approval", "action": "decline", "content": {}}), "/content"),
        (json!({"step": "ask", "key": "approval", "action": "shrug"}), "/action"),
        (json!({"step": "ask", "key": "approval", "action": {"decline": null}}), "/action"),
        (json!({"step": "ask", "key": "approval", "action": "decline", "by": "Ada"}), "/by"),
    ] {
        let refused = give(&weir, &run, &wrong).await.expect(422);
        assert_eq!((&refused["code"], &refused["errors"][0]["pointer"]), (&json!("invalid_request"), &json!(pointer)));
    }
    for (step, key) in [("other", "approval"), ("kept", "approval"), ("ask", "other")] {
        let wrong = json!({"step": step, "key": key, "action": "decline"});
        assert_eq!(give(&weir, &run, &wrong).await.expect(409)["code"], "nothing_asked");
    }
    is_waiting(&weir, &run).await;

    assert_eq!(give(&weir, &run, &yes()).await.expect(202)["id"], json!(run));
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    let steps = weir.steps(&run).await;
    assert_eq!(steps[0]["result"], json!({"approved": true, "comment": "after lunch"}));
    assert_eq!(
        (&steps[0]["attempts"], &steps[0]["questions"], &steps[1]["status"]),
        (&json!(2), &Value::Null, &json!("SUCCEEDED"))
    );
    // Who never heard of the first time may repeat it, in whatever order its members are.
    let again = accept("approval", &json!({"comment": "after lunch", "approved": true}));
    assert_eq!(give(&weir, &run, &again).await.expect(202)["status"], "SUCCEEDED");
    let no = json!({"step": "ask", "key": "approval", "action": "decline"});
    assert_eq!(give(&weir, &run, &no).await.expect(409)["code"], "already_answered");
    let other = json!({"step": "ask", "key": "other", "action": "decline"});
    assert_eq!(give(&weir, &run, &other).await.expect(409)["code"], "run_finished");
}

#[tokio::test]
async fn a_patience_without_end_is_one() {
    let weir = Weir::start(&[]).await;
    weir.example("approve").await;
    let input = json!({"question": "Deploy?", "approvers": ["Ada"], "within_seconds": 1e18});
    let run = asking(&weir, &json!({"tool_name": "approve_by_all", "input": input})).await;
    let yes = accept("Ada", &json!({"approved": true, "comment": ""}));
    give(&weir, &run, &yes).await.expect(202);
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn the_journal_has_questions_and_answers_and_not_what_the_tool_remembers() {
    let weir = Weir::start(&["plugin_calls_kept=10"]).await;
    weir.example("approve").await;
    let run = asking(&weir, &json!({})).await;
    give(&weir, &run, &yes()).await.expect(202);
    weir.finished(&run).await;
    let journal = weir.get(&format!("/runs/{run}/journal")).await.expect(200);
    let events: Vec<&Value> = journal["items"]
        .as_array()
        .expect("entries")
        .iter()
        .flat_map(|entry| entry["events"].as_array().expect("events"))
        .collect();
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names[..5], ["started", "attempted", "asked", "received", "attempted"], "{journal}");
    assert_eq!(events[3]["message"]["answer"]["answer"]["content"]["comment"], "after lunch");
    assert_eq!((&events[2]["questions"][0]["key"], &events[2]["state"]), (&json!("approval"), &Value::Null));
    // Of the calls only the first is kept: the other one depends on what the tool remembers.
    let calls = within("a kept call", async {
        loop {
            let calls = weir.get("/plugins/approve/calls").await.expect(200)["items"].clone();
            if calls != json!([]) {
                return calls;
            }
        }
    })
    .await;
    assert_eq!(calls.as_array().map(Vec::len), Some(1), "{calls}");
    assert_eq!(calls[0]["outcome"]["questions"][0]["key"], "approval", "{calls}");
}

#[tokio::test]
async fn who_says_no_or_nothing_is_told_to_the_tool() {
    let weir = Weir::start(&[]).await;
    weir.example("approve").await;
    for action in ["decline", "cancel"] {
        let run = asking(&weir, &json!({})).await;
        give(&weir, &run, &json!({"step": "ask", "key": "approval", "action": action})).await.expect(202);
        assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
        let steps = weir.steps(&run).await;
        assert_eq!(
            (&steps[0]["result"]["approved"], &steps[1]["status"]),
            (&json!(false), &json!("SKIPPED")),
            "{action}"
        );
    }
}

#[tokio::test]
async fn several_are_asked_at_once_and_the_first_answer_of_each_counts() {
    let weir = Weir::start(&[]).await;
    weir.example("approve").await;
    let all = |more: Value| {
        let mut input = json!({"question": "Deploy?", "approvers": ["Ada", "Grace"]});
        input.as_object_mut().expect("members").extend(more.as_object().expect("members").clone());
        json!({"tool_name": "approve_by_all", "input": input})
    };
    let said = |comment: &str| json!({"approved": true, "comment": comment});
    let run = asking(&weir, &all(json!({}))).await;
    let first = accept("Ada", &said("first"));
    give(&weir, &run, &first).await.expect(202);
    // Repeating it is answered as it was; something else is not.
    give(&weir, &run, &first).await.expect(202);
    assert_eq!(give(&weir, &run, &accept("Ada", &said("second"))).await.expect(409)["code"], "already_answered");
    is_waiting(&weir, &run).await;
    give(&weir, &run, &accept("Grace", &said("too"))).await.expect(202);
    weir.finished(&run).await;
    assert_eq!(weir.steps(&run).await[0]["result"], json!({"approved": true, "by": ["Ada", "Grace"]}));

    // A tool with patience goes on with what came.
    let run = weir.run(&weir.workflow(&ask(&all(json!({"within_seconds": 0.2})))).await, &Value::Null).await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(weir.steps(&run).await[0]["result"], json!({"approved": false, "by": []}));
}

#[tokio::test]
async fn nobody_waits_for_longer_than_the_step_says_and_a_redrive_asks_again() {
    let weir = Weir::start(&[]).await;
    weir.example("approve").await;
    let run = weir.run(&weir.workflow(&ask(&json!({"answer_timeout_seconds": 0.2}))).await, &Value::Null).await;
    let finished = weir.finished(&run).await;
    assert_eq!((&finished["status"], &finished["error"]["code"]), (&json!("FAILED"), &json!("answer_timeout")));
    crate::errors::failure("answer_timeout", &finished["error"]);
    weir.post(&format!("/runs/{run}/redrive"), &Value::Null).await.expect(202);
    weir.finished(&run).await;
    let journal = weir.get(&format!("/runs/{run}/journal")).await.expect(200).to_string();
    assert_eq!(journal.matches(r#""event":"asked""#).count(), 2, "{journal}");
    let never = weir_tests::definition(&ask(&json!({"answer_timeout_seconds": 0})));
    let refused = weir.post("/workflows", &json!({"name": "x", "definition": never})).await;
    assert_eq!(refused.expect(422)["errors"][0]["pointer"], "/definition/steps/0/answer_timeout_seconds");
}

#[tokio::test]
async fn a_run_that_waits_for_an_answer_can_be_canceled() {
    let weir = Weir::start(&[]).await;
    weir.example("approve").await;
    let run = asking(&weir, &json!({})).await;
    weir.post(&format!("/runs/{run}/cancel"), &Value::Null).await.expect(202);
    assert_eq!(weir.finished(&run).await["status"], "CANCELED");
    assert_eq!(weir.steps(&run).await[0]["status"], "CANCELED");
    assert_eq!(give(&weir, &run, &yes()).await.expect(409)["code"], "run_finished");
}

#[tokio::test]
async fn questions_and_answers_survive_kill_9() {
    let mut weir = Weir::start(&[]).await;
    weir.example("approve").await;
    let run = asking(&weir, &json!({})).await;
    weir.kill();
    weir.restart().await;
    is_waiting(&weir, &run).await;
    assert_eq!(weir.asked(&run, "ask").await[0]["key"], "approval");
    give(&weir, &run, &yes()).await.expect(202);
    // What was acknowledged counts, whether the run has seen it or not.
    weir.kill();
    weir.restart().await;
    assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(weir.steps(&run).await[0]["result"], json!({"approved": true, "comment": "after lunch"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_asks_another_takes_the_answer_and_a_third_goes_on() {
    let cluster = Cluster::start().await;
    let (api, mut worker) = tokio::join!(cluster.weir("api", &[]), cluster.weir("worker", &[]));
    api.example("approve").await;
    let run = asking(&api, &json!({})).await;
    worker.kill();
    is_waiting(&api, &run).await;
    give(&api, &run, &yes()).await.expect(202);
    give(&api, &run, &yes()).await.expect(202);
    let no = json!({"step": "ask", "key": "approval", "action": "decline"});
    assert_eq!(give(&api, &run, &no).await.expect(409)["code"], "already_answered");
    let _another = cluster.weir("worker", &[]).await;
    assert_eq!(api.finished(&run).await["status"], "SUCCEEDED");
    assert_eq!(api.steps(&run).await[0]["result"]["comment"], "after lunch");
}

/// A run whose tool asks three things.
const ASKS: Script = Script {
    steps: |_| json!([{"type": "mcp_tool", "name": "ask", "plugin": "frozen", "tool_name": "ask"}]),
    answers: |_| {},
    cancel: false,
};

impl Scene {
    /// Drives the run until its tool has asked and it waits.
    async fn asks_in_the_end(&self) {
        for _ in 0..20 {
            if self.state().await.steps.values().any(|step| step.phase == Phase::Asking) {
                return;
            }
            self.clock.advance(LEASE);
            let Some(claimed) = self.claim().await else { continue };
            self.drive(claimed, usize::MAX).await;
        }
        panic!("the tool does not ask: {:#?}", self.state().await);
    }

    /// What a client does that repeats its answers until the run goes on.
    async fn answer(&self) {
        for answer in frozen::answers() {
            let action = if answer["action"] == "accept" { AnswerAction::Accept } else { AnswerAction::Decline };
            let (key, content) = (answer["key"].as_str().expect("a key").to_owned(), answer.get("content").cloned());
            let answer = Given { key, action, content };
            self.bench.store.send_answer(self.run, 0, StepPath::top("ask"), answer).await.expect("sent");
        }
    }

    /// Drives until the tool has asked, and answers.
    async fn answered(&self) {
        let claimed = self.claim().await.expect("a due run");
        assert_eq!(self.drive(claimed, usize::MAX).await, Some(Drove::Released));
        self.answer().await;
    }

    /// The run has ended with all answers.
    async fn is_done(&self, polls: usize) {
        let outcome = self.outcome().await;
        assert_eq!(outcome["outcome"], "SUCCEEDED", "dropped after {polls} polls: {outcome}");
        assert_eq!(outcome["steps"][0]["output"]["result"], frozen::resumed(), "dropped after {polls} polls");
    }
}

/// Drops the driver at every poll until the tool has asked, then at every poll after it was answered.
async fn survives_every_crash(stage: &Stage) {
    for polls in 0.. {
        let scene = Scene::new(stage, &ASKS).await;
        let claimed = scene.claim().await.expect("a due run");
        let ended = scene.drive(claimed, polls).await;
        scene.asks_in_the_end().await;
        scene.answer().await;
        scene.finish().await;
        scene.is_done(polls).await;
        if ended.is_some() {
            assert!(polls > 1, "a driver that never waits cannot be interrupted: {polls} polls");
            break;
        }
    }
    for polls in 0.. {
        let scene = Scene::new(stage, &ASKS).await;
        scene.answered().await;
        let claimed = scene.claim().await.expect("a due run");
        let ended = scene.drive(claimed, polls).await;
        scene.finish().await;
        scene.is_done(polls).await;
        if ended.is_some() {
            assert!(polls > 1, "a driver that never waits cannot be interrupted: {polls} polls");
            break;
        }
    }
}

#[tokio::test]
async fn a_call_that_asks_survives_a_crash_at_any_moment() {
    survives_every_crash(&Stage::Sqlite).await;
    survives_every_crash(&Stage::postgres().await).await;
}
