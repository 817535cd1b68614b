//! Answers that an author gives a tool on the command line.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::model::ask::{Answer, AnswerAction, Asked, Resumption};
use crate::telemetry::one_line;
use crate::tools::answer_faults;

/// Reads every `--answer`.
///
/// # Errors
/// When one cannot be read, or two are for one key.
pub(super) fn read_all(texts: &[String]) -> anyhow::Result<Vec<Answer>> {
    let mut answers: Vec<Answer> = Vec::with_capacity(texts.len());
    for text in texts {
        let answer = read(text)?;
        if answers.iter().any(|other| other.key == answer.key) {
            bail!("--answer {}: there are two answers for this key", one_line(&answer.key));
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// Tells of answers to questions that were never asked.
pub(super) fn tell_unasked(answers: &[Answer], asked: &BTreeSet<String>) {
    for Answer { key, .. } in answers.iter().filter(|answer| !asked.contains(&answer.key)) {
        eprintln!("--answer {}: the tool never asked this", one_line(key));
    }
}

/// Reads `KEY=ANSWER`, where ANSWER is the content as JSON, or an action without one.
fn read(text: &str) -> anyhow::Result<Answer> {
    let (key, answer) = text.split_once('=').context("--answer must be like KEY='{\"approved\": true}'")?;
    let bare = |action| Ok(Answer { key: key.to_owned(), action, content: None });
    match answer {
        "accept" => bare(AnswerAction::Accept),
        "decline" => bare(AnswerAction::Decline),
        "cancel" => bare(AnswerAction::Cancel),
        json => {
            let content: Value = serde_json::from_str(json)
                .with_context(|| format!("--answer {key}: is not JSON, and not `accept`, `decline` or `cancel`"))?;
            Ok(Answer { key: key.to_owned(), action: AnswerAction::Accept, content: Some(content) })
        }
    }
}

/// How a call goes on that asks, given these answers; nothing when not all that it asks is answered. A pause is not
/// waited for.
pub(super) fn resumption(asked: &Asked, answers: &[Answer], round: u32) -> anyhow::Result<Option<Resumption>> {
    let mut given = Vec::new();
    for question in &asked.questions {
        eprintln!("asks {}: {}", one_line(&question.key), one_line(&question.message));
        let Some(answer) = answers.iter().find(|answer| answer.key == question.key) else { continue };
        if let Some(fault) = answer_faults(question, answer, "").first() {
            let place = if fault.pointer.is_empty() { String::new() } else { format!("{}: ", fault.pointer) };
            bail!("--answer {}: {place}{}", one_line(&answer.key), one_line(&fault.message));
        }
        given.push(answer.clone());
    }
    if let Some(time) = asked.resume_after {
        eprintln!("goes on after {} seconds at the latest; here it does at once", time.as_secs_f64());
    }
    let goes_on = given.len() == asked.questions.len() || asked.resume_after.is_some();
    if !goes_on {
        let open = asked.questions.iter().find(|question| !given.iter().any(|answer| answer.key == question.key));
        let key = open.map_or("KEY", |question| question.key.as_str());
        eprintln!("the call waits for an answer: give it with --answer {}=ANSWER", one_line(key));
    }
    Ok(goes_on.then(|| Resumption { state: asked.state.clone(), answers: given, round }))
}
