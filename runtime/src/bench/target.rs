//! A bare HTTP handler: the target of http steps, and the limit of what a server can answer.

use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

/// Starts it. It answers a small JSON document to whatever is asked, and `/text/{bytes}` with so many bytes of text.
pub(super) async fn bare_handler(tasks: &mut JoinSet<()>) -> anyhow::Result<Url> {
    let answer = || async { axum::Json(json!({"run_id": "01a217dd-f8a1-7c21-9f3c-6c1d5f2f7b11", "total": 99.5})) };
    let text = |Path(bytes): Path<usize>| async move { "x".repeat(bytes) };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
    let app =
        Router::new().route("/", get(answer)).route("/text/{bytes}", get(text)).route("/webhooks/{path}", post(answer));
    tasks.spawn(async move {
        // It serves until the measurement is over and this task is dropped.
        let _ = axum::serve(listener, app).await;
    });
    Ok(url)
}
