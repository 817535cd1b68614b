//! A run advances by whoever holds its claim, and by nobody else.

use std::collections::HashSet;
use std::time::Duration;

use uuid::Uuid;
use weir::clock::Clock as _;
use weir::model::ask::{Answer, AnswerAction};
use weir::model::error::FailureCode;
use weir::model::id::RunId;
use weir::model::journal::{Message, Outcome};
use weir::model::path::StepPath;
use weir::store::{Appended, Next, Sent, Status};

use super::{Database, LEASE, written};

pub(super) async fn a_claim_excludes_every_other_until_its_lease_ends(db: Database) {
    let mut first = db.claimed(1).await;
    let run = first.claim.run;
    assert_eq!(db.status(run).await, Status::Running);
    assert!(db.claim(run).await.is_none());
    db.clock.advance(LEASE);
    let second = db.claim(run).await.expect("the lease is over");
    assert_ne!(second.claim.token, first.claim.token);
    assert_eq!(second.interrupts, 1);
    assert_eq!(db.write(&mut first, &db.started()).await, Appended::Lost);
}

pub(super) async fn an_append_needs_the_claim_and_its_sequence(db: Database) {
    let mut claimed = db.claimed(1).await;
    assert_eq!(db.write(&mut claimed, &db.started()).await, written(0));
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, written(0));
    assert_eq!(claimed.claim.seq, 2);
    let entries = db.store.journal(claimed.claim.run, 0, 10).await.expect("readable");
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(entries[1].events, db.completed(Next::Continue).events);
    claimed.claim.seq = 7;
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, Appended::Lost);
    assert_eq!(db.store.journal(claimed.claim.run, 2, 10).await.expect("readable").len(), 0);
}

pub(super) async fn a_repeated_append_is_written_once(db: Database) {
    let mut claimed = db.claimed(1).await;
    for append in [db.started(), db.finish(Outcome::Succeeded)] {
        assert_eq!(db.write(&mut claimed, &append).await, written(0));
        // Its answer got lost: the caller asks again with the same token and sequence.
        claimed.claim.seq -= 1;
        assert_eq!(db.write(&mut claimed, &append).await, written(0));
    }
    assert_eq!(db.store.journal(claimed.claim.run, 0, 10).await.expect("readable").len(), 2);
}

pub(super) async fn a_wait_gives_the_claim_back_until_its_time(db: Database) {
    let mut claimed = db.claimed(1).await;
    db.write(&mut claimed, &db.started()).await;
    let until = db.clock.now().plus(Duration::from_secs(600));
    db.write(&mut claimed, &db.completed(Next::Wait(until))).await;
    let run = claimed.claim.run;
    assert_eq!((db.status(run).await, db.store.next_due().await.expect("readable")), (Status::Waiting, Some(until)));
    db.clock.advance(Duration::from_secs(599));
    assert_eq!(db.due().await, []);
    db.clock.advance(Duration::from_secs(1));
    assert_eq!(db.due().await, [run]);
    // Waiting is no interruption.
    assert_eq!(db.store.run(run).await.expect("readable").expect("there").status, Status::Running);
}

pub(super) async fn a_message_makes_a_waiting_run_due_at_once(db: Database) {
    let mut claimed = db.claimed(1).await;
    db.write(&mut claimed, &db.started()).await;
    let run = claimed.claim.run;
    db.write(&mut claimed, &db.completed(Next::Wait(db.clock.now().plus(Duration::from_secs(600))))).await;
    assert!(matches!(db.store.send(run, Message::Cancel).await.expect("sent"), Sent::Delivered(_)));
    let again = db.claim(run).await.expect("due at once");
    assert_eq!(again.inbox, 1);
    assert_eq!(db.store.messages(run, 0).await.expect("readable"), [(1, Message::Cancel)]);
    assert_eq!(db.store.messages(run, 1).await.expect("readable"), []);
}

pub(super) async fn the_first_answer_to_a_question_counts(db: Database) {
    let run = db.create(1).await;
    let answer = |key: &str, action| Answer { key: key.to_owned(), action, content: None };
    let send = async |redrives, answer: Answer| {
        db.store.send_answer(run, redrives, StepPath::top("a"), answer).await.expect("answered")
    };
    let key = "a key\0 with everything";
    let yes = answer(key, AnswerAction::Accept);
    // Whoever is first counts, also when two come at once.
    let (one, other) = tokio::join!(send(0, yes.clone()), send(0, yes.clone()));
    assert!(matches!((one, other), (Sent::Delivered(_), Sent::Delivered(_))));
    let (one, other) =
        tokio::join!(send(0, answer("b", AnswerAction::Accept)), send(0, answer("b", AnswerAction::Cancel)));
    assert_eq!(usize::from(matches!(one, Sent::Answered)) + usize::from(matches!(other, Sent::Answered)), 1);
    assert!(matches!(send(0, answer(key, AnswerAction::Decline)).await, Sent::Answered));
    assert!(matches!(send(1, answer(key, AnswerAction::Decline)).await, Sent::Delivered(_)));
    let messages = db.store.messages(run, 0).await.expect("readable");
    assert_eq!(messages.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(messages[0].1, Message::Answer { step: StepPath::top("a"), answer: yes });
    assert_eq!(db.claim(run).await.expect("due").inbox, 3);
}

pub(super) async fn a_message_that_came_before_a_wait_is_not_slept_over(db: Database) {
    let mut claimed = db.claimed(1).await;
    let run = claimed.claim.run;
    assert_eq!(db.write(&mut claimed, &db.started()).await, written(0));
    db.store.send(run, Message::Cancel).await.expect("sent");
    let far = db.clock.now().plus(Duration::from_secs(600));
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Wait(far))).await, written(1));
    assert_eq!(db.due().await, [run]);
    let other = db.claimed(2).await.claim;
    db.store.send(other.run, Message::Cancel).await.expect("sent");
    db.store.release(other.run, other.token, far, 0).await.expect("released");
    assert_eq!(db.due().await, [other.run]);
}

pub(super) async fn a_finished_run_is_never_claimed(db: Database) {
    let mut claimed = db.claimed(1).await;
    let run = claimed.claim.run;
    db.write(&mut claimed, &db.started()).await;
    db.write(&mut claimed, &db.finish(Outcome::Succeeded)).await;
    db.clock.advance(LEASE * 10);
    assert!(db.claim(run).await.is_none());
    assert_eq!(db.due().await, []);
    assert_eq!(db.status(run).await, Status::Ended(Outcome::Succeeded));
    assert!(matches!(db.store.send(run, Message::Cancel).await.expect("answered"), Sent::Refused));
    assert_eq!(db.write(&mut claimed, &db.completed(Next::Continue)).await, Appended::Lost);
}

pub(super) async fn only_a_failed_run_is_opened_again(db: Database) {
    let mut failed = db.claimed(1).await;
    let run = failed.claim.run;
    assert!(matches!(db.store.send(run, Message::Redrive).await.expect("answered"), Sent::Refused));
    db.write(&mut failed, &db.started()).await;
    db.write(&mut failed, &db.finish(Outcome::Failed)).await;
    let row = db.store.run(run).await.expect("readable").expect("there");
    assert_eq!(row.error.expect("an error").code, FailureCode::HttpStatus);
    assert!(matches!(db.store.send(run, Message::Redrive).await.expect("sent"), Sent::Delivered(_)));
    let row = db.store.run(run).await.expect("readable").expect("there");
    assert_eq!((row.status, row.error, row.finished_at), (Status::Waiting, None, None));
    let again = db.claim(run).await.expect("open again");
    assert_eq!((again.claim.seq, again.inbox, again.interrupts), (2, 1, 0));
}

pub(super) async fn claims_without_progress_make_a_suspect(db: Database) {
    let run = db.create(1).await;
    for interrupts in 0..2 {
        let mut claimed = db.claim(run).await.expect("free");
        assert_eq!(claimed.interrupts, interrupts);
        // The note that it began is no progress.
        if claimed.claim.seq == 0 {
            db.write(&mut claimed, &db.started()).await;
        }
        db.clock.advance(LEASE);
    }
    assert!(db.claim(run).await.is_none());
    assert_eq!(db.due().await, []);
    let mut suspect = db.store.claim_suspect(LEASE).await.expect("claims").expect("a suspect");
    assert_eq!(suspect.interrupts, 2);
    db.write(&mut suspect, &db.completed(Next::Continue)).await;
    db.clock.advance(LEASE);
    assert_eq!(db.claim(run).await.expect("progress clears it").interrupts, 1);
}

pub(super) async fn a_release_counts_no_interruption(db: Database) {
    let run = db.create(1).await;
    for _ in 0..5 {
        let claimed = db.claim(run).await.expect("free");
        assert_eq!(claimed.interrupts, 0);
        db.store.release(run, claimed.claim.token, db.clock.now(), 0).await.expect("released");
    }
    let broken = db.claim(run).await.expect("free");
    db.store.abandon(run, broken.claim.token, db.clock.now()).await.expect("abandoned");
    assert_eq!(db.claim(run).await.expect("free").interrupts, 1);
}

pub(super) async fn suspects_are_claimed_one_at_a_time_and_by_themselves(db: Database) {
    for n in 1..=3 {
        db.create(n).await;
    }
    for _ in 0..2 {
        db.clock.advance(LEASE);
        assert_eq!(db.due().await.len(), 3);
    }
    let fresh = db.create(4).await;
    db.clock.advance(LEASE);
    assert_eq!(db.due().await, [fresh]);
    let suspect = db.store.claim_suspect(LEASE).await.expect("claims").expect("a suspect").claim.run;
    // Somebody who ends a run before anything is performed need not wait for the lane.
    let other = if suspect == RunId(Uuid::from_u128(1)) { 2 } else { 1 };
    let canceled = db.store.claim_any(RunId(Uuid::from_u128(other)), LEASE).await.expect("claims").expect("free");
    assert_eq!(canceled.interrupts, 2);
    assert!(db.store.claim_any(suspect, LEASE).await.expect("claims").is_none());
}

pub(super) async fn due_runs_are_claimed_the_longest_due_first(db: Database) {
    let mut runs = Vec::new();
    for n in [3, 1, 2] {
        runs.push(db.create(n).await);
        db.clock.advance(Duration::from_millis(10));
    }
    assert_eq!(db.due().await, []);
    db.clock.advance(Duration::from_secs(2));
    let first = db.store.claim_due(2, LEASE).await.expect("claims");
    assert_eq!(
        first.iter().map(|claimed| claimed.claim.run).collect::<HashSet<_>>(),
        HashSet::from([runs[0], runs[1]])
    );
    assert_eq!(db.due().await, [runs[2]]);
}
