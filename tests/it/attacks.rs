//! Guests and uploads that attack: each fails its own call or its own upload with its own code, while well-behaved runs go
//! on beside it. What speed they keep is a matter of `weir bench`.
//!
//! Elsewhere: endless loops, memory that is taken at once, floods of output and of log lines, recursion, and a guest that
//! is blocked in the host past its deadline (`sandbox.rs`); malformed uploads, functions without an end, imports that
//! nobody offers, and several sections with requests (`plugins.rs`); random bytes (`fuzz.rs`); files, sockets and processes
//! (`guests.rs`); what a guest does with the network (`access.rs`, `attacks_network.rs`); files of the cache
//! (`cache.rs`); signatures (`signing.rs`).

use std::cell::Cell;

use serde_json::{Value, json};
use weir_host::plugin::Artifact;
use weir_tests::guest::{Guest, SOUND, put};
use weir_tests::plugin::bytes;
use weir_tests::process::Weir;

/// Well-behaved runs beside an attack, at least.
const BESIDE_MIN: usize = 20;

/// Makes `attack` while well-behaved runs go on beside it: one after the other, and each with its own right answer.
pub(crate) async fn beside(weir: &Weir, attack: impl Future<Output = ()>) {
    weir.example("greet").await;
    let steps = json!([
        {"type": "mcp_tool", "plugin": "greet", "tool_name": "greet", "name": "first", "input": {"name": "{{ trigger.who }}"}},
        {"type": "mcp_tool", "plugin": "greet", "tool_name": "greet", "name": "then", "input": {"name": "{{ steps.first.result }}"}},
    ]);
    let workflow = weir.workflow(&steps).await;
    let over = Cell::new(false);
    let sound = async {
        for n in 0.. {
            if over.get() && n >= BESIDE_MIN {
                break;
            }
            let run = weir.run(&workflow, &json!({"who": format!("Ada {n}")})).await;
            assert_eq!(weir.finished(&run).await["status"], "SUCCEEDED", "run {n} beside the attack");
            assert_eq!(weir.steps(&run).await[1]["result"], format!("Hello, Hello, Ada {n}!!"), "run {n}");
        }
    };
    futures::join!(async { (attack.await, over.set(true)) }, sound);
}

/// The end of a run that calls `attack` of the plugin, and its step.
async fn attacked(weir: &Weir, plugin: &str, input: &Value) -> (Value, Value) {
    let step = json!({"type": "mcp_tool", "plugin": plugin, "tool_name": "attack", "input": "{{ trigger }}",
        "retry": {"max_attempts": 1}, "timeout_seconds": 30});
    let run = weir.run(&weir.workflow(&json!([step])).await, input).await;
    (weir.finished(&run).await, weir.steps(&run).await[0].clone())
}

/// Grows a table until that is refused; where it was not refused in time it never ends, which is another code.
const TABLE_GROWTH: &str = "(loop $more (br_if $more (i32.ne (i32.const -1)
        (table.grow $t (ref.null func) (i32.const 1000)))))
    (if (i32.gt_u (table.size $t) (i32.const 20000)) (then (loop $ever (br $ever))))
    unreachable";

/// Takes memory page by page, and writes to each.
const MEMORY_IN_STEPS: &str = "(local $page i32)
    (loop $more
      (local.set $page (memory.grow (i32.const 1)))
      (if (i32.ne (local.get $page) (i32.const -1)) (then
        (i32.store (i32.shl (local.get $page) (i32.const 16)) (i32.const 1))
        (br $more))))
    unreachable";

/// Answers with so many brackets.
const DEEP: &str = "(memory.fill (i32.const 131072) (i32.const 0x5b) (i32.const 200000))
    (call $answer (i32.const 131072) (i32.const 200000))";
const DEEP_AND_SOUND: &str = "(memory.fill (i32.const 131072) (i32.const 0x5b) (i32.const 100))
    (memory.fill (i32.const 131172) (i32.const 0x5d) (i32.const 100))
    (call $answer (i32.const 131072) (i32.const 200))";

/// Answers with a list of so many blocks, all of nothing: more than there is memory, and more than a host should take.
const BLOCKS_BEYOND_MEMORY: &str = "(i32.store (i32.const 2064) (i32.const 131072))
    (i32.store (i32.const 2068) (i32.const 0x10000000))
    (i32.const 2048)";
const BLOCKS: &str = "(drop (memory.grow (i32.const 48)))
    (i32.store (i32.const 2064) (i32.const 131072))
    (i32.store (i32.const 2068) (i32.const 20000))
    (i32.const 2048)";

/// What a guest does, and the code that its call fails with.
const CALLS: [(&str, &str, &str, &str); 14] = [
    ("table-growth", "(table $t 1 funcref)", TABLE_GROWTH, "tool_trapped"),
    ("memory-in-steps", "", MEMORY_IN_STEPS, "tool_memory_exceeded"),
    ("divide", "", "(i32.div_u (i32.const 1) (i32.const 0))", "tool_trapped"),
    ("answer-beyond-memory", "", "(i32.const 0x7fffff00)", "tool_contract_broken"),
    ("answer-between-addresses", "", "(i32.const 2049)", "tool_contract_broken"),
    ("answer-of-no-kind", "", "(i32.store8 (i32.const 2048) (i32.const 7)) (i32.const 2048)", "tool_contract_broken"),
    ("text-beyond-memory", "", "(call $answer (i32.const 16) (i32.const 0x7fffffff))", "tool_contract_broken"),
    (
        "text-of-no-encoding",
        "",
        "(i32.store8 (i32.const 3000) (i32.const 0xff)) (call $answer (i32.const 3000) (i32.const 1))",
        "tool_contract_broken",
    ),
    ("blocks-beyond-memory", "", BLOCKS_BEYOND_MEMORY, "tool_contract_broken"),
    ("blocks-of-nothing", "", BLOCKS, "tool_output_too_large"),
    ("no-json", "", "(call $answer (i32.const 16) (i32.const 6))", "tool_contract_broken"),
    ("deep-json", "", DEEP, "tool_contract_broken"),
    ("deep-and-sound-json", "", DEEP_AND_SOUND, "tool_contract_broken"),
    (
        "asks-for-fuel",
        "",
        "(loop $ever (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) (br $ever)) unreachable",
        "tool_fuel_exhausted",
    ),
];

#[tokio::test]
async fn each_attack_fails_its_own_call_with_its_own_code() {
    let weir = Weir::start(&["tool_fuel_max_millions=300"]).await;
    let attacks = async {
        for (name, more, call, code) in CALLS {
            weir.upload(Guest { name, more, call, ..SOUND }.module()).await.expect(201);
            for _ in 0..2 {
                let (finished, step) = attacked(&weir, name, &json!({})).await;
                assert_eq!(
                    (&step["status"], &step["error"]["code"]),
                    (&json!("FAILED"), &json!(code)),
                    "{name}: {step}"
                );
                assert_eq!(finished["error"]["code"], code);
            }
        }
    };
    Box::pin(beside(&weir, attacks)).await;
    // Afterwards the host is as it was.
    weir.upload(SOUND.module()).await.expect(201);
    assert_eq!(attacked(&weir, "sound", &json!({"a": 1})).await.1["result"], json!({"a": 1}));
}

#[tokio::test]
async fn no_schema_makes_arguments_costly() {
    let weir = Weir::start(&[]).await;
    let regex = r#"{"type":"object","properties":{"s":{"type":"string","pattern":"^(([a-z])+.)+[A-Z]([a-z])+$"}}}"#;
    let nested = r##"{"type":"object","properties":{"s":{"$ref":"#/$defs/d"}},"$defs":{"d":
        {"items":{"$ref":"#/$defs/d"},"allOf":[{"items":{"$ref":"#/$defs/d"}}]}}}"##;
    let deep = (0..50).fold(json!([]), |inner, _| json!([inner]));
    let attacks = async {
        for (name, schema, value, says) in [
            ("regex-bomb", regex, json!("a".repeat(500_000)), "/input/s: "),
            ("doubling", nested, deep, "/input: takes more than 1000000 steps"),
        ] {
            weir.upload(Guest { name, schema, ..SOUND }.module()).await.expect(201);
            let (finished, step) = attacked(&weir, name, &json!({"s": value})).await;
            assert_eq!(finished["error"]["code"], "invalid_tool_arguments", "{name}: {finished}");
            let message = finished["error"]["message"].as_str().expect("text");
            assert!(message.contains(says) && message.len() < 1000, "{name}: {message}");
            assert!(step.get("used").is_none(), "the guest did not run: {step}");
            assert_eq!(attacked(&weir, name, &json!({})).await.0["status"], "SUCCEEDED", "{name}");
        }
    };
    Box::pin(beside(&weir, attacks)).await;
}

/// Schemas that would cost too much, and what is said of them.
fn schemas() -> Vec<(&'static str, String, &'static str)> {
    let reference = |to: usize| json!({"$ref": format!("#/$defs/d{to}")});
    let definitions = |each: fn(Value) -> Value| {
        let each = |n: usize| (format!("d{n}"), if n == 30 { json!({}) } else { each(reference(n + 1)) });
        json!({"type": "object", "$ref": "#/$defs/d0", "$defs": (0..31).map(each).collect::<serde_json::Map<_, _>>()})
    };
    let object = |keyword: &str, value: Value| {
        let mut schema = json!({"type": "object"});
        schema[keyword] = value;
        schema.to_string()
    };
    let deep = (0..40).fold(json!({}), |inner, _| json!({"not": inner}));
    let brackets = format!("{{\"type\":\"object\",\"const\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    let wide: serde_json::Map<String, Value> =
        (0..5000).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    let alternatives: Vec<Value> = (0..1001).map(|n| json!({"const": n})).collect();
    vec![
        ("deep", object("not", deep), "levels deep"),
        ("brackets", brackets, "is not JSON: recursion limit"),
        ("wide", object("properties", json!(wide)), "the limit is 65536 bytes"),
        ("alternatives", object("anyOf", json!(alternatives)), "more than 1000 subschemas"),
        ("doubling", definitions(|next| json!({"allOf": [next, next]})).to_string(), "more than 1000 subschemas"),
        ("itself", object("$ref", json!("#")), "refers to itself"),
        ("circle", object("allOf", json!([{"$ref": "#/allOf/1"}, {"$ref": "#/allOf/0"}])), "refers to itself"),
        ("elsewhere", object("$ref", json!("http://127.0.0.1/schema.json")), "is not a reference inside the schema"),
        ("counted", object("pattern", json!("((a{100}){100}){100}")), "pattern"),
        ("remembered", object("pattern", json!("(a)\\1")), "pattern"),
        ("patterns", object("allOf", json!(vec![json!({"pattern": "a"}); 65])), "65 patterns"),
        ("no-object", json!({"type": "string"}).to_string(), "must have the type `object`"),
        ("no-schema", object("properties", json!(7)), "inputSchema of the tool `attack`"),
    ]
}

#[tokio::test]
async fn schema_bombs_are_refused_at_the_door() {
    let weir = Weir::start(&[]).await;
    let attacks = async {
        for (name, schema, says) in schemas() {
            refused(&weir, name, Guest { name, schema: &schema, ..SOUND }.module(), says).await;
        }
    };
    Box::pin(beside(&weir, attacks)).await;
}

/// Uploads what must be refused, and for what.
async fn refused(weir: &Weir, name: &str, plugin: Vec<u8>, says: &str) {
    let refused = weir.upload(plugin).await;
    assert_eq!((refused.status, &refused.body["code"]), (422, &json!("invalid_plugin")), "{name}: {}", refused.body);
    let detail = refused.text("detail");
    assert!(detail.contains(says) && detail.len() < 5000, "{name}: {detail}");
}

/// Guests that misbehave before anybody calls them.
const LISTINGS: [(&str, &str, &str, &str); 11] = [
    ("loop", "", "(loop $ever (br $ever)) unreachable", "did not list its tools: the tool "),
    ("recursion", "(func $deep (result i32) (i32.add (call $deep) (call $deep)))", "(call $deep)", "used up its stack"),
    (
        "start",
        "(func $start (loop $ever (br $ever))) (start $start)",
        "(i32.const 512)",
        "did not list its tools: the tool ",
    ),
    ("many", "", "(i32.store (i32.const 516) (i32.const 101)) (i32.const 512)", "lists 101 tools, more than 100"),
    ("more", "", "(i32.store (i32.const 516) (i32.const 0x1000000)) (i32.const 512)", "did not list its tools"),
    ("none", "", "(i32.store (i32.const 516) (i32.const 0)) (i32.const 512)", "lists no tools"),
    ("nameless", "", "(i32.store (i32.const 1028) (i32.const 0)) (i32.const 512)", "is not a name"),
    ("huge-memory", "(memory $b 2000)", "(i32.const 512)", "cannot be used"),
    ("memories", "(memory $b 1) (memory $c 1)", "(i32.const 512)", "cannot be used"),
    ("huge-table", "(table 30000 funcref)", "(i32.const 512)", "cannot be used"),
    ("threads", "(memory $b 1 2 shared)", "(i32.const 512)", ""),
];

#[tokio::test]
async fn guests_that_misbehave_before_a_call_are_refused() {
    let weir = Weir::start(&[]).await;
    let attacks = async {
        for (name, more, list, says) in LISTINGS {
            refused(&weir, name, Guest { name, more, list, ..SOUND }.module(), says).await;
        }
        let tables = "(table 1 funcref) ".repeat(9);
        refused(&weir, "tables", Guest { name: "tables", more: &tables, ..SOUND }.module(), "cannot be used").await;
    };
    Box::pin(beside(&weir, attacks)).await;
}

/// Text that repeats `line` with each number and the one before.
fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (1..=count).map(line).collect()
}

/// Components of too much, around a sound one.
fn oversized() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let around = |inside: String| SOUND.around(&format!("(component {inside})"));
    let nested = |count: usize| (0..count).fold(String::new(), |inner, _| format!("(component {inner})"));
    vec![
        ("modules", around("(core module) ".repeat(64)), "modules inside, more than 64"),
        ("components", around(nested(70)), "modules inside, more than 64"),
        (
            "doubling types",
            around("(type $t0 u8) ".to_owned() + &lines(40, |n| format!("(type $t{n} (tuple $t{0} $t{0})) ", n - 1))),
            "effective type size",
        ),
        (
            "fields",
            around(format!("(type (record {}))", lines(20_000, |n| format!("(field \"f{n}\" u8) ")))),
            "malformed",
        ),
    ]
}

#[tokio::test]
async fn components_of_too_much_and_of_another_world_are_refused() {
    let weir = Weir::start(&[]).await;
    let attacks = async {
        for (name, component, says) in oversized().into_iter().chain(other_worlds()).chain(requests()) {
            refused(&weir, name, component, says).await;
        }
    };
    Box::pin(beside(&weir, attacks)).await;
}

/// Components that are sound, and none that the contract knows.
fn other_worlds() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let exporting = |name: &str, functions: &[&str]| {
        let functions: String = functions.iter().map(|name| format!("(export \"{name}\" (func $f))")).collect();
        let text = format!(
            "(component (core module $m (func (export \"f\") (result i32) i32.const 0)) (core instance $i (instantiate $m))
            (func $f (result u32) (canon lift (core func $i \"f\")))
            (instance $t {functions}) (export \"{name}\" (instance $t)))"
        );
        wat::parse_str(text).expect("sound")
    };
    let importing = |function: &str| {
        let import = format!("(import \"weir:plugin/tool-log@0.1.0\" (instance (export \"{function}\" (func))))");
        let mut component = wat::parse_str(format!("(component {import})")).expect("sound");
        // Only the import differs: all else is a sound plugin, nested and exported by nobody.
        put(&mut component, 4, &SOUND.component());
        component
    };
    let both = ["list-tools", "call-tool"];
    vec![
        ("other types", exporting("weir:plugin/tools@0.1.0", &both), "broke its contract with the host"),
        ("half of it", exporting("weir:plugin/tools@0.1.0", &both[..1]), "cannot be used"),
        ("a later version", exporting("weir:plugin/tools@0.2.0", &both), "does not export weir:plugin/tools@0.1.0"),
        ("another name", exporting("weir:plugin/tool@0.1.0", &both), "does not export weir:plugin/tools@0.1.0"),
        ("no export", importing("write"), "does not export weir:plugin/tools@0.1.0"),
    ]
}

/// Components with requests that are none, or too many.
fn requests() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let silent = Artifact::admit(&weir_tests::plugin::patched(&SOUND.module(), "weir:request", "other:sectio"));
    let silent = silent.expect("a plugin").component;
    let with = |request: &[u8]| {
        let mut component = silent.clone();
        put(&mut component, 0, &[b"\x0cweir:request", request].concat());
        component
    };
    let inside = "(@custom \"weir:request\" \"{\\22name\\22:\\22sound\\22,\\22version\\22:\\221\\22}\")";
    let nested = SOUND.around(&format!("(component (core module {inside}))"));
    let long = json!({"name": "a", "version": "1", "description": "x".repeat(70_000)}).to_string();
    let deep = format!("{{\"name\":\"a\",\"http\":{}", "[".repeat(10_000));
    vec![
        ("two in modules inside", nested, "more than one section"),
        ("long", with(long.as_bytes()), "more than 65536"),
        ("deep", with(deep.as_bytes()), "is not a request"),
        ("no text", with(b"{\"name\":\"\xff\"}"), "is not a request"),
        ("twice", with(br#"{"name":"a","name":"b","version":"1"}"#), "is there twice"),
        ("a list", with(br#"["a","1"]"#), "must be an object"),
    ]
}

#[tokio::test]
async fn uploads_that_end_early_are_refused() {
    // Each place, without a server; those that fall between sections may still be a plugin, and then the same one twice.
    let mut whole = 0;
    for plugin in [SOUND.module(), SOUND.component()] {
        for cut in 0..plugin.len() {
            if let Ok(artifact) = Artifact::admit(&plugin[..cut]) {
                let again = Artifact::admit(&artifact.component).expect("admitted");
                assert_eq!(again.digest, artifact.digest, "cut at {cut}");
                whole += 1;
            }
        }
    }
    assert!(whole < 10, "{whole} pieces are plugins");
    // And some places of a real one, each to a server.
    let weir = Weir::start(&[]).await;
    let plugin = bytes("misbehave");
    let attacks = async {
        for cut in (1..40).map(|part| plugin.len() * part / 41) {
            refused(&weir, &format!("{cut} bytes"), plugin[..cut].to_vec(), "").await;
        }
    };
    Box::pin(beside(&weir, attacks)).await;
    assert_eq!(weir.get("/plugins").await.expect(200)["items"].as_array().map(Vec::len), Some(1));
}
