//! Bytes and arguments that nobody would think of. A short round in every test run; `make fuzz` goes on for longer
//! (`WEIR_FUZZ_ROUNDS`, `WEIR_FUZZ_SEED`). What fails says its seed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use weir::model::ask::Reply;
use weir::model::error::FailureCode;
use weir::model::id::RunId;
use weir::model::tool::{OnToolError, ToolCall};
use weir::tools::{Caller, examine};
use weir_host::plugin::Artifact;
use weir_tests::plugin::{asking, bytes, host};

fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long to go on is said by whoever starts the tests")]
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `bytes` after some of what can happen to bytes.
fn mutated(bytes: &[u8], dice: &mut StdRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..dice.random_range(1..6) {
        let at = dice.random_range(0..bytes.len());
        let length = dice.random_range(1..64).min(bytes.len() - at);
        match dice.random_range(0..6) {
            0 => bytes[at] = dice.random(),
            1 => bytes[at] ^= 1 << dice.random_range(0..8),
            2 => bytes.truncate(at.max(8)),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let copy = bytes[at..at + length].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => bytes[at..at + length].fill(dice.random()),
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn no_upload_harms_the_host() {
    let (rounds, seed) = (setting("WEIR_FUZZ_ROUNDS", 400), setting("WEIR_FUZZ_SEED", 1));
    let host = host();
    let request = json!({"name": "p", "version": "1", "http": [{"host": "a.com", "methods": ["GET"]}]});
    let small = weir::bench::module().expect("a small plugin");
    let modules = [small.clone(), asking(&bytes("greet"), &request)];
    let component = |module: &Vec<u8>| Artifact::admit(module).expect("a plugin").component;
    let all: Vec<Vec<u8>> = modules.iter().cloned().chain(modules.iter().map(component)).collect();
    let mut admitted = 0;
    for round in 0..rounds {
        let mut dice = StdRng::seed_from_u64(seed + round);
        let from = &all[usize::try_from(round).expect("small") % all.len()];
        let mutant = mutated(from, &mut dice);
        let Ok(artifact) = Artifact::admit(&mutant) else { continue };
        // What is admitted is a component that is admitted again, as the same.
        let again =
            Artifact::admit(&artifact.component).unwrap_or_else(|error| panic!("seed {}: {error}", seed + round));
        assert_eq!((again.digest, &again.request), (artifact.digest, &artifact.request), "seed {}", seed + round);
        admitted += 1;
        // Few get here; each is compiled and asked for its tools, and may say what it likes.
        if from.len() < 20_000
            && let Ok(examined) = examine(&host, mutant).await
        {
            assert!(!examined.listed.tools.is_empty(), "seed {}", seed + round);
        }
    }
    assert!(admitted < rounds, "not one of {rounds} mutants was refused");
    // The host still works.
    examine(&host, small).await.expect("a plugin");
}

/// Any JSON value, of the kinds that schemas and guests have trouble with.
fn any(dice: &mut StdRng, depth: u32) -> Value {
    match dice.random_range(0..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(dice.random::<bool>()),
        2 => json!(dice.random::<i64>()),
        3 => json!(f64::from_bits(dice.random())),
        4 => json!("\u{0}\u{feff}\u{10ffff}e\u{301}".repeat(dice.random_range(0..40))),
        5 => json!(["name", "greet", "", "$ref", "__proto__", "{{ x }}"][dice.random_range(0..6)]),
        6 => (0..dice.random_range(0..5)).map(|_| any(dice, depth - 1)).collect(),
        _ => {
            let names = ["name", "input", "expression", "$schema", "\u{0}", ""];
            let member = |dice: &mut StdRng| (names[dice.random_range(0..6)].to_owned(), any(dice, depth - 1));
            Value::Object((0..dice.random_range(0..5)).map(|_| member(dice)).collect())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_arguments_harm_a_sound_tool() {
    let (rounds, seed) = (setting("WEIR_FUZZ_ROUNDS", 400), setting("WEIR_FUZZ_SEED", 1));
    let plugin = examine(&host(), bytes("greet")).await.expect("a plugin").loaded;
    let fine = [FailureCode::InvalidToolArguments, FailureCode::ToolFailed];
    let mut answered = 0;
    for round in 0..rounds {
        let mut dice = StdRng::seed_from_u64(seed + round);
        let arguments = if round % 4 == 0 { json!({"name": any(&mut dice, 0)}) } else { any(&mut dice, 4) };
        let call =
            ToolCall { tool: "greet".to_owned(), arguments: arguments.clone(), on_tool_error: OnToolError::Continue };
        let by = Caller {
            run: RunId(uuid::Uuid::nil()),
            step: "fuzz".to_owned(),
            attempt: 1,
            idempotency_key: "fuzz".to_owned(),
            resumed: None,
            timeout: weir_tests::PATIENCE,
        };
        match plugin.call(&call, by, std::sync::Arc::default(), None).await.0 {
            Ok(Reply::Asked(asked)) => panic!("seed {}: {asked:?}", seed + round),
            Ok(Reply::Output(output)) => {
                answered += 1;
                let name = arguments["name"].as_str().unwrap_or_else(|| panic!("seed {}: {arguments}", seed + round));
                assert_eq!(output.result, format!("Hello, {name}!"), "seed {}", seed + round);
            }
            Err(failed) => assert!(fine.contains(&failed.failure.code), "seed {}: {failed:?}", seed + round),
        }
    }
    assert!(answered > 0, "no arguments of {rounds} fitted");
}
