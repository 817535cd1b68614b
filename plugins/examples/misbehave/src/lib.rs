//! Tools that do what no tool should. Each is stopped by its own limit, and nobody beside it notices.

use weir_sdk::prelude::*;

#[weir_sdk::input]
struct Nothing {}

#[weir_sdk::input]
struct Size {
    bytes: usize,
}

#[weir_sdk::input]
struct Target {
    authority: String,
}

/// A request, as it is written; nothing in it is checked here.
#[weir_sdk::input]
struct Fetch {
    url: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    /// Sends so many bytes more.
    #[serde(default)]
    more_bytes: usize,
    /// Puts this secret's placeholder where `[secret]` stands in URL, headers and body.
    #[serde(default)]
    secret: Option<String>,
    /// Redirects that are followed by hand.
    #[serde(default)]
    redirects: u32,
}

fn get() -> String {
    "GET".to_owned()
}

#[weir_sdk::input]
struct Many {
    url: String,
    count: u32,
}

#[weir_sdk::input]
struct Name {
    name: String,
}

/// An answer that is not what its schema says.
struct Promise;

impl weir_sdk::Output for Promise {
    fn schema() -> Option<Value> {
        Some(json!({"type": "number"}))
    }

    fn into_answer(self) -> Result<Answer, ToolError> {
        Ok(Answer { structured: Some(json!("a text")), ..Answer::default() })
    }
}

weir_sdk::plugin! {
    /// Computes for ever.
    fn endless_loop(_input: Nothing, _cx: &Context) -> Result<Text, ToolError> {
        let mut n = 0_u64;
        loop {
            n = std::hint::black_box(n.wrapping_add(1));
        }
    }

    /// Takes memory until there is none.
    fn memory_hog(_input: Nothing, _cx: &Context) -> Result<Text, ToolError> {
        let mut taken = Vec::new();
        loop {
            taken.push(std::hint::black_box(vec![1_u8; 1 << 20]));
        }
    }

    /// Takes so much memory, gives it back, and answers.
    fn take_memory(input: Size, _cx: &Context) -> Result<Text, ToolError> {
        let taken = std::hint::black_box(vec![1_u8; input.bytes]);
        Ok(Text(format!("took {} bytes", taken.len())))
    }

    /// Answers with so many bytes.
    fn output_flood(input: Size, _cx: &Context) -> Result<Text, ToolError> {
        Ok(Text("x".repeat(input.bytes)))
    }

    /// Panics.
    fn panic(_input: Nothing, _cx: &Context) -> Result<Text, ToolError> {
        panic!("this tool always panics")
    }

    /// Calls itself without end.
    fn deep_recursion(_input: Nothing, _cx: &Context) -> Result<Text, ToolError> {
        Ok(Text(deeper(1).to_string()))
    }

    /// Logs without end, and then answers.
    fn log_flood(input: Size, cx: &Context) -> Result<Text, ToolError> {
        for n in 0..input.bytes {
            cx.log(weir_sdk::Level::Info, &format!("line {n}"));
        }
        Ok(Text("logged".to_owned()))
    }

    /// Wants the network, and fails when it is refused.
    fn fetch(input: Target, _cx: &Context) -> Result<Text, ToolError> {
        network::fetch(&input.authority).map(Text).map_err(ToolError::permanent)
    }

    /// Makes any request, and answers what came back.
    fn fetch_url(input: Fetch, cx: &Context) -> Result<Json<Value>, ToolError> {
        let placeholder = input.secret.map(|name| cx.secret(&name)).transpose()?;
        let placed = |text: &str| match &placeholder {
            Some(secret) => text.replace("[secret]", secret.as_ref()),
            None => text.to_owned(),
        };
        let (mut url, mut left) = (placed(&input.url), input.redirects);
        loop {
            let mut request = cx.request(&input.method, &url).body(placed(&input.body) + &"x".repeat(input.more_bytes));
            for (name, value) in &input.headers {
                request = request.header(name, placed(value));
            }
            let response = request.send()?;
            match response.header("location").filter(|_| left > 0) {
                Some(location) => {
                    left -= 1;
                    url = location.to_owned();
                }
                None => {
                    let echoed = response.header("x-echo");
                    return Ok(Json(json!({"status": response.status(), "body": response.text(), "echoed": echoed})));
                }
            }
        }
    }

    /// Begins many requests at once, and answers how many were let out.
    fn fetch_many(input: Many, _cx: &Context) -> Result<Json<Value>, ToolError> {
        Ok(Json(network::fetch_many(&input.url, input.count).map_err(ToolError::permanent)?))
    }

    /// Reads a response byte by byte, and rests in between.
    fn read_slowly(input: Many, _cx: &Context) -> Result<Text, ToolError> {
        network::read_slowly(&input.url, input.count).map(Text).map_err(ToolError::permanent)
    }

    /// Shows what stands for a secret.
    fn show_secret(input: Name, cx: &Context) -> Result<Text, ToolError> {
        Ok(Text(cx.secret(&input.name)?.as_ref().to_owned()))
    }

    /// Shows a setting.
    fn show_setting(input: Name, cx: &Context) -> Result<Json<Option<String>>, ToolError> {
        Ok(Json(cx.setting(&input.name)))
    }

    /// Wants the network, and answers what came of it.
    fn try_fetch(input: Target, _cx: &Context) -> Result<Text, ToolError> {
        Ok(Text(network::fetch(&input.authority).unwrap_or_else(|error| error)))
    }

    /// Waits in the host, for longer than anybody has.
    fn sleep(_input: Nothing, _cx: &Context) -> Result<Text, ToolError> {
        network::sleep_an_hour();
        Ok(Text("rested".to_owned()))
    }

    /// Promises a number, and gives a text.
    fn break_promise(_input: Nothing, _cx: &Context) -> Result<Promise, ToolError> {
        Ok(Promise)
    }

    /// Fails, and says that it may work later.
    fn fail_for_now(_input: Nothing, _cx: &Context) -> Result<Text, ToolError> {
        Err(ToolError::retryable("the service behind this tool is busy").with_code("busy"))
    }

    /// Answers that it did not work.
    fn answer_an_error(_input: Nothing, _cx: &Context) -> Result<Text, ToolError> {
        Err(ToolError::answer("there is no such customer"))
    }
}

#[expect(unconditional_recursion, reason = "this is what the tool is for")]
fn deeper(n: u64) -> u64 {
    let held = std::hint::black_box([n; 64]);
    deeper(n + 1) + held[0]
}

/// What the sandbox gives of the network: standard `wasi:http`.
#[cfg(target_arch = "wasm32")]
mod network {
    use wasip2::http::outgoing_handler;
    use wasip2::http::types::{Fields, FutureIncomingResponse, OutgoingRequest, Scheme};
    use weir_sdk::prelude::*;

    fn begin(authority: &str, path: &str) -> Result<FutureIncomingResponse, String> {
        let request = OutgoingRequest::new(Fields::new());
        request.set_scheme(Some(&Scheme::Http)).map_err(|()| "the scheme is refused")?;
        request.set_authority(Some(authority)).map_err(|()| "the authority is refused")?;
        request.set_path_with_query(Some(path)).map_err(|()| "the path is refused")?;
        outgoing_handler::handle(request, None).map_err(|error| error.to_string())
    }

    /// Host and path of an http URL.
    fn parts(url: &str) -> Result<(&str, &str), String> {
        let rest = url.strip_prefix("http://").ok_or("only http here")?;
        Ok(rest.split_at(rest.find('/').unwrap_or(rest.len())))
    }

    pub(crate) fn fetch_many(url: &str, count: u32) -> Result<Value, String> {
        let (authority, path) = parts(url)?;
        let begun = (0..count).map(|_| begin(authority, path)).collect::<Result<Vec<_>, _>>()?;
        let (mut answered, mut denied, mut failed) = (0, 0, 0);
        for response in begun {
            response.subscribe().block();
            match response.get() {
                Some(Ok(Ok(_))) => answered += 1,
                Some(Ok(Err(error))) if error.to_string().contains("HttpRequestDenied") => denied += 1,
                _ => failed += 1,
            }
        }
        Ok(json!({"answered": answered, "denied": denied, "failed": failed}))
    }

    pub(crate) fn read_slowly(url: &str, pause_millis: u32) -> Result<String, String> {
        let (authority, path) = parts(url)?;
        let response = begin(authority, path)?;
        response.subscribe().block();
        let Some(Ok(Ok(response))) = response.get() else { return Err("there is no response".to_owned()) };
        let body = response.consume().map_err(|()| "there is no body")?;
        let stream = body.stream().map_err(|()| "there is no body")?;
        let mut read = 0;
        while let Ok(bytes) = stream.blocking_read(1) {
            read += bytes.len();
            wasip2::clocks::monotonic_clock::subscribe_duration(u64::from(pause_millis) * 1_000_000).block();
        }
        Ok(format!("{read} bytes"))
    }

    pub(crate) fn fetch(authority: &str) -> Result<String, String> {
        let response = begin(authority, "/")?;
        response.subscribe().block();
        match response.get() {
            Some(Ok(Ok(response))) => Ok(format!("status {}", response.status())),
            Some(Ok(Err(error))) => Err(error.to_string()),
            _ => Err("there is no response".to_owned()),
        }
    }

    pub(crate) fn sleep_an_hour() {
        wasip2::clocks::monotonic_clock::subscribe_duration(3_600_000_000_000).block();
    }
}

/// Natively there is no sandbox, and so nothing to ask for.
#[cfg(not(target_arch = "wasm32"))]
mod network {
    pub(crate) fn fetch(_: &str) -> Result<String, String> {
        Err("there is no network outside of a sandbox".to_owned())
    }

    pub(crate) fn fetch_many(_: &str, _: u32) -> Result<weir_sdk::prelude::Value, String> {
        Err("there is no network outside of a sandbox".to_owned())
    }

    pub(crate) fn read_slowly(_: &str, _: u32) -> Result<String, String> {
        Err("there is no network outside of a sandbox".to_owned())
    }

    pub(crate) fn sleep_an_hour() {}
}

#[test]
fn an_error_that_is_an_answer_is_no_failure() {
    let answer = testing::call("answer_an_error", json!({})).unwrap();
    assert!(answer.is_error);
    assert_eq!(answer.text(), "there is no such customer");
    assert!(testing::call("fail_for_now", json!({})).unwrap_err().is_retryable());
}
