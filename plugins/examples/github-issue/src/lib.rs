//! Creates issues on GitHub: a model for a plugin that changes something in another service.
//!
//! A step may be tried again after its request was carried out, when the answer was lost. GitHub knows no idempotency
//! keys, so the key of the call stands in a comment of the issue that pages do not show, and an issue that has it
//! already is the answer. What the plugin asks for is in `plugin.toml`.

use std::time::Duration;

use weir_sdk::prelude::*;
use weir_sdk::{RequestBuilder, Response};

/// Where the API is: what `plugin.toml` asks for, so no setting can lead elsewhere.
const API: &str = "https://api.github.com";

/// Issues on a page of the list: the most that GitHub gives.
const PAGE: usize = 100;

/// Pages that are looked through, the newest issues first.
const PAGES_MAX: usize = 3;

/// What GitHub wants to be left alone for when a limit says no more.
const LIMITED: Duration = Duration::from_secs(60);

/// The issue to create.
#[weir_sdk::input]
struct NewIssue {
    /// The repository, as `owner/name`. Without it, the one that the operator set.
    repo: Option<String>,
    /// The title.
    title: String,
    /// The text, in Markdown.
    #[serde(default)]
    body: String,
    /// Names of labels.
    #[serde(default)]
    labels: Vec<String>,
}

/// The issue that is there now.
#[weir_sdk::output]
struct Issue {
    /// Its number in the repository.
    number: u64,
    /// Its page.
    url: String,
}

weir_sdk::plugin! {
    /// Creates an issue in a repository on GitHub.
    #[tool(title = "Create a GitHub issue", destructive = false, idempotent, open_world)]
    fn create_issue(input: NewIssue, cx: &Context) -> Result<Json<Issue>, ToolError> {
        if input.title.trim().is_empty() {
            return Err(ToolError::invalid_arguments("/title: an issue has one"));
        }
        let issues = issues(input.repo, cx)?;
        let mark = format!("<!-- weir: {} -->", cx.idempotency_key().replace('>', "%3E"));
        if let Some(issue) = find(&mark, &issues, cx)? {
            cx.log_with(weir_sdk::Level::Info, "an earlier attempt created it", json!({"number": issue.number}));
            return Ok(Json(issue));
        }
        let body = format!("{}\n\n{mark}", input.body);
        let new = json!({"title": input.title, "body": body, "labels": input.labels});
        let created = send(cx.post(&issues).json(&new), cx)?;
        read(&created.json()?).map(Json)
    }
}

/// The URL of a repository's issues.
fn issues(repo: Option<String>, cx: &Context) -> Result<String, ToolError> {
    let none = || ToolError::invalid_arguments("/repo: is missing, and the setting `default_repo` is not made");
    let repo = repo.or_else(|| cx.setting("default_repo")).ok_or_else(none)?;
    // It becomes a part of the path, and may not lead elsewhere.
    let plain = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part.chars().all(known) && part != "." && part != ".."
    };
    if !repo.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name)) {
        return Err(ToolError::invalid_arguments(format!("/repo: {repo:?} is not written as owner/name")));
    }
    Ok(format!("{API}/repos/{repo}/issues"))
}

/// The open issue that has `mark` in its text.
fn find(mark: &str, issues: &str, cx: &Context) -> Result<Option<Issue>, ToolError> {
    for page in 1..=PAGES_MAX {
        let list = cx.get(issues).query("state", "open").query("per_page", PAGE.to_string());
        let list: Vec<Value> = send(list.query("page", page.to_string()), cx)?.json()?;
        let marked = |issue: &&Value| issue["body"].as_str().is_some_and(|body| body.contains(mark));
        if let Some(issue) = list.iter().find(marked) {
            return read(issue).map(Some);
        }
        if list.len() < PAGE {
            break;
        }
    }
    Ok(None)
}

/// An issue, as GitHub writes it.
fn read(issue: &Value) -> Result<Issue, ToolError> {
    match (issue["number"].as_u64(), issue["html_url"].as_str()) {
        (Some(number), Some(url)) => Ok(Issue { number, url: url.to_owned() }),
        _ => Err(HttpError::from(HttpErrorKind::Body("an issue has a `number` and an `html_url`".to_owned())).into()),
    }
}

/// Makes a request with what GitHub wants to see in each.
fn send(request: RequestBuilder<'_>, cx: &Context) -> Result<Response, ToolError> {
    let response = request
        .header("accept", "application/vnd.github+json")
        .header("user-agent", "weir-github-issue")
        .header("x-github-api-version", "2022-11-28")
        .bearer(cx.secret("github_token")?)
        .send()?;
    let limited = response.header("retry-after").is_some() || response.header("x-ratelimit-remaining") == Some("0");
    if response.status() == 403 && limited {
        return Err(ToolError::retryable("GitHub takes no more requests for now")
            .with_code("rate_limited")
            .after(response.retry_after().unwrap_or(LIMITED)));
    }
    if (300..400).contains(&response.status()) {
        return Err(ToolError::permanent("the repository has moved: use its new name").with_code("repo_moved"));
    }
    Ok(response.error_for_status()?)
}

#[cfg(test)]
mod tests;
