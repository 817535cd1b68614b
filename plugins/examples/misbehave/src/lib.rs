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
    use wasip2::http::types::{Fields, OutgoingRequest, Scheme};

    pub(crate) fn fetch(authority: &str) -> Result<String, String> {
        let request = OutgoingRequest::new(Fields::new());
        request.set_scheme(Some(&Scheme::Http)).map_err(|()| "the scheme is refused")?;
        request.set_authority(Some(authority)).map_err(|()| "the authority is refused")?;
        request.set_path_with_query(Some("/")).map_err(|()| "the path is refused")?;
        let response = outgoing_handler::handle(request, None).map_err(|error| error.to_string())?;
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

    pub(crate) fn sleep_an_hour() {}
}

#[test]
fn an_error_that_is_an_answer_is_no_failure() {
    let answer = testing::call("answer_an_error", json!({})).unwrap();
    assert!(answer.is_error);
    assert_eq!(answer.text(), "there is no such customer");
    assert!(testing::call("fail_for_now", json!({})).unwrap_err().is_retryable());
}
