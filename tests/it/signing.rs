//! Signed plugins: any change is noticed, at the upload, in the database and from the command line.

use std::os::unix::fs::PermissionsExt as _;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;
use weir_host::plugin::{Artifact, PublicKey, SecretKey, Signature, SignedText};
use weir_tests::plugin::{asking, bytes, patched};
use weir_tests::process::{Answer, Weir, answer, run};

/// Somebody with a key, which the command line made.
pub(crate) struct Author {
    dir: TempDir,
    pub(crate) public: String,
}

impl Author {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let made = run(dir.path(), &["plugin", "keygen"], &[]);
        assert!(made.status.success(), "{made:?}");
        let public = String::from_utf8(made.stdout).expect("text").trim().to_owned();
        Self { dir, public }
    }

    /// Runs `weir plugin` beside the key, and answers whether it went well, and what it said.
    fn weir(&self, args: &[&str]) -> (bool, String) {
        let output = run(self.dir.path(), &[&["plugin"], args].concat(), &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    /// Signs a plugin, and answers the signature as it stands in the file.
    pub(crate) fn sign(&self, plugin: &[u8]) -> String {
        std::fs::write(self.dir.path().join("plugin.wasm"), plugin).expect("written");
        let (ok, text) = self.weir(&["sign", "plugin.wasm", "--key", "weir-signing.key"]);
        assert!(ok && text.contains(&self.public), "{text}");
        std::fs::read_to_string(self.dir.path().join("plugin.wasm.sig")).expect("a signature").trim().to_owned()
    }
}

/// Uploads a plugin with its signature.
pub(crate) async fn upload(weir: &Weir, plugin: Vec<u8>, signature: &str) -> Answer {
    answer(weir.request(Method::POST, "/plugins").header("weir-plugin-signature", signature).body(plugin)).await
}

fn component(plugin: &[u8]) -> Vec<u8> {
    Artifact::admit(plugin).expect("sound").component
}

/// The error of a run that calls `greet`; null where it went well.
async fn error(weir: &Weir, workflow: &str) -> Value {
    let run = weir.run(workflow, &Value::Null).await;
    weir.finished(&run).await["error"].clone()
}

async fn workflow(weir: &Weir) -> String {
    let once = json!({"max_attempts": 1});
    let step = json!({"type": "mcp_tool", "tool_name": "greet", "input": {"name": "Ada"}, "retry": once});
    weir.workflow(&json!([step])).await
}

#[test]
fn keys_and_signatures_are_files_that_work_offline() {
    let (ada, eve) = (Author::new(), Author::new());
    let key = ada.dir.path().join("weir-signing.key");
    assert_eq!(std::fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&key).expect("text");
    assert!(secret.starts_with("weir-ed25519-secret:") && ada.public.starts_with("weir-ed25519:"), "{}", ada.public);
    let signature = ada.sign(&bytes("greet"));
    // The same key and the same plugin: the same signature, of the module as of the component that is made of it.
    assert_eq!(ada.sign(&component(&bytes("greet"))), signature);
    assert_ne!(eve.sign(&bytes("greet")), signature);
    let verify = |key: &str| ada.weir(&["verify", "plugin.wasm", "--key", key]);
    let (ok, text) = ada.weir(&["verify", "plugin.wasm", "--key", &eve.public, "--key", &ada.public]);
    assert!(ok && text.contains("sha256:") && text.contains(&ada.public), "{text}");
    let (ok, text) = verify(&eve.public);
    assert!(!ok && text.contains("is not a signature of sha256:"), "{text}");
    let (ok, text) = verify("weir-ed25519:AAAA");
    assert!(!ok && text.contains("is not `weir-ed25519:` and 32 bytes"), "{text}");
    let told = secret.trim();
    let (ok, text) = verify(told);
    assert!(!ok && text.contains("a secret key") && !text.contains(&told[20..]), "{text}");
    for setting in [format!("plugin_trusted_keys=ada={told}"), format!("plugin_trusted_keys=[\"{told}\"]")] {
        let output = run(ada.dir.path(), &["migrate", "--set", &setting], &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains("a secret key") && !text.contains(&told[20..]), "{text}");
    }
    let changed = patched(&bytes("greet"), "Hello", "Howdy");
    std::fs::write(ada.dir.path().join("plugin.wasm"), changed).expect("written");
    assert!(!verify(&ada.public).0, "another component");
    // A key is never written over, nor used when others can read it.
    let (ok, text) = ada.weir(&["keygen"]);
    assert!(!ok && text.contains("exists") && std::fs::read_to_string(&key).expect("text") == secret, "{text}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).expect("changed");
    let (ok, text) = ada.weir(&["sign", "plugin.wasm", "--key", "weir-signing.key"]);
    assert!(!ok && text.contains("can be read by others (mode 640)") && !text.contains(secret.trim()), "{text}");
}

#[tokio::test]
async fn a_push_takes_the_signature_along() {
    let (ada, eve) = (Author::new(), Author::new());
    let keys = format!("plugin_trusted_keys=[\"ada={}\"]", ada.public);
    let open = Weir::start(&[&keys]).await;
    let strict = Weir::start(&[&keys, "plugin_signature_required=true"]).await;
    let push = |weir: &Weir, more: &[&str]| {
        ada.weir(&[&["push", "plugin.wasm", "--server", weir.url("/").as_str()], more].concat())
    };
    std::fs::write(ada.dir.path().join("plugin.wasm"), bytes("greet")).expect("written");
    let (ok, text) = push(&strict, &[]);
    assert!(!ok && text.contains("plugin_signature_required"), "{text}");
    ada.sign(&bytes("greet"));
    for weir in [&open, &strict] {
        let (ok, text) = push(weir, &[]);
        assert!(ok && text.contains("signed   as plugin.wasm.sig says") && text.contains("signed by ada"), "{text}");
        assert_eq!(weir.get("/plugins/greet").await.expect(200)["signed_by"], "ada");
    }
    // One that is named, one that is not there, and one of something else.
    let signature = ada.dir.path().join("plugin.wasm.sig");
    std::fs::rename(&signature, ada.dir.path().join("other.sig")).expect("moved");
    assert!(push(&strict, &["--signature", "other.sig"]).0);
    let (ok, text) = push(&strict, &["--signature", "nowhere.sig"]);
    assert!(!ok && text.contains("nowhere.sig"), "{text}");
    std::fs::write(&signature, eve.sign(&bytes("greet"))).expect("written");
    let (ok, text) = push(&open, &[]);
    let says = "plugin.wasm.sig is not a signature of plugin.wasm by a key that the server trusts";
    assert!(!ok && text.contains(says) && text.contains("invalid_plugin_signature"), "{text}");
    std::fs::write(&signature, "nonsense").expect("written");
    let (ok, text) = push(&open, &[]);
    assert!(!ok && text.contains("plugin.wasm.sig: a signature is 64 bytes in base64"), "{text}");
}

#[test]
fn a_change_of_any_byte_is_noticed() {
    let (secret, component) = (SecretKey::from_random(&[7; 32]), component(&bytes("greet")));
    let text = SignedText::of(&component).expect("sound");
    let (public, signature) = (secret.public(), secret.sign(&text));
    assert!(public.signed(&text, &signature));
    let request = component.windows(12).rposition(|window| window == b"weir:request").expect("a request");
    assert!(component.len() - request < 400, "it is at the end");
    let everywhere = (0..component.len()).step_by(component.len() / 300);
    for at in everywhere.chain(request - 4..component.len()) {
        let mut changed = component.clone();
        changed[at] ^= 1 << (at % 8);
        // What cannot even be read has no text.
        let noticed = SignedText::of(&changed).is_ok_and(|text| public.signed(&text, &signature));
        assert!(!noticed, "byte {at}");
    }
    for cut in [1, 100, component.len() / 2] {
        let text = SignedText::of(&component[..component.len() - cut]);
        assert!(!text.is_ok_and(|text| public.signed(&text, &signature)), "{cut} bytes less");
    }
    for bit in 0..512 {
        let mut changed = signature.to_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!public.signed(&text, &Signature::from_bytes(&changed)), "bit {bit} of the signature");
    }
    for bit in 0..256 {
        let mut changed = public.to_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        let signed = PublicKey::from_bytes(&changed).is_some_and(|key| key.signed(&text, &signature));
        assert!(!signed, "bit {bit} of the key");
    }
    // A key under which everything is signed is none.
    let mut weak = [0; 32];
    weak[0] = 1;
    assert!(PublicKey::from_bytes(&weak).is_none() && PublicKey::from_bytes(&[0; 32]).is_none());
}

#[tokio::test]
async fn an_upload_is_held_against_the_signature_that_comes_with_it() {
    let (ada, eve) = (Author::new(), Author::new());
    let keys = format!("plugin_trusted_keys=ada={}", ada.public);
    let mut weir = Weir::start(&[&keys]).await;
    let greet = bytes("greet");
    let signature = ada.sign(&greet);
    let mut flipped = Signature::parse(&signature).expect("a signature").to_bytes();
    flipped[40] ^= 4;
    let flipped = Signature::from_bytes(&flipped).to_string();
    for (what, plugin, signature) in [
        ("nobody knows the key", greet.clone(), eve.sign(&greet)),
        ("a changed signature", greet.clone(), flipped),
        ("of another plugin", bytes("transform"), signature.clone()),
        ("of another version", patched(&greet, "Hello", "Howdy"), signature.clone()),
        ("no base64", greet.clone(), "?".repeat(88)),
        ("too short", greet.clone(), "AAAA".to_owned()),
        ("nothing", greet.clone(), String::new()),
    ] {
        let refused = upload(&weir, plugin, &signature).await.expect(422);
        assert_eq!(refused["code"], "invalid_plugin_signature", "{what}: {refused}");
    }
    assert_eq!(weir.get("/plugins").await.expect(200)["items"], json!([]));
    // None is needed here; it can come later, and another upload without one does not take it away.
    assert_eq!(weir.upload(greet.clone()).await.expect(201)["signed_by"], Value::Null);
    assert_eq!(upload(&weir, greet.clone(), &signature).await.expect(200)["signed_by"], "ada");
    assert_eq!(weir.upload(greet.clone()).await.expect(200)["signed_by"], "ada");
    assert_eq!(weir.get("/plugins").await.expect(200)["items"][0]["signed_by"], "ada");
    // Keys are rolled by signing anew. Whose key is not known any more is shown as that key.
    weir.set(&format!("plugin_trusted_keys={}", eve.public));
    weir.kill();
    weir.restart().await;
    assert_eq!(weir.get("/plugins/greet").await.expect(200)["signed_by"], ada.public);
    assert_eq!(error(&weir, &workflow(&weir).await).await, Value::Null, "none is required");
    assert_eq!(upload(&weir, greet.clone(), &eve.sign(&greet)).await.expect(200)["signed_by"], eve.public);
}

#[tokio::test]
async fn where_signatures_are_required_nothing_else_is_taken_or_run() {
    let (ada, eve) = (Author::new(), Author::new());
    let mut weir = Weir::start(&[]).await;
    let greet = bytes("greet");
    weir.upload(greet.clone()).await.expect(201);
    let call = workflow(&weir).await;
    assert_eq!(error(&weir, &call).await, Value::Null);
    weir.set(&format!("plugin_trusted_keys=ada={}", ada.public));
    weir.set("plugin_signature_required=true");
    weir.kill();
    weir.restart().await;
    let unusable = async |weir: &Weir, says: &str| {
        let error = error(weir, &call).await;
        assert_eq!(error["code"], "plugin_unusable", "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{error}");
    };
    unusable(&weir, "it is not signed, and `plugin_signature_required` is on").await;
    assert!(weir.line_with("a plugin cannot be used").await.contains("it is not signed"));
    // Nor can anybody say now that it is to be used from now on.
    for (member, plugin, pointer) in
        [("plugin", "greet", "/definition/steps/0/plugin"), ("name", "hi", "/definition/steps/0/tool_name")]
    {
        let step = json!({"type": "mcp_tool", "tool_name": "greet", member: plugin, "input": {"name": "Ada"}});
        let definition = weir_tests::definition(&json!([step]));
        let refused = weir.post("/workflows", &json!({"name": "late", "definition": definition})).await.expect(422);
        let says = "may not be used: it is not signed, and `plugin_signature_required` is on";
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
        assert!(refused["errors"][0]["message"].as_str().is_some_and(|said| said.contains(says)), "{refused}");
    }
    let refused = weir.post("/plugins/greet@0.1.0/activate", &Value::Null).await.expect(403);
    assert_eq!(refused["code"], "plugin_signature_required", "{refused}");
    let refused = weir.upload(greet.clone()).await;
    insta::assert_snapshot!("plugin_signature_required", refused.shape(&[]));
    assert_eq!(weir.upload(bytes("transform")).await.status, 403);
    // The signature is all that was missing: the process need not be started again.
    assert_eq!(upload(&weir, greet.clone(), &ada.sign(&greet)).await.expect(200)["signed_by"], "ada");
    assert_eq!(error(&weir, &call).await, Value::Null);
    // A key that is trusted no more, and the way out.
    weir.set(&format!("plugin_trusted_keys=eve={}", eve.public));
    weir.kill();
    weir.restart().await;
    unusable(&weir, &format!("it is signed by {}, which `plugin_trusted_keys` does not have", ada.public)).await;
    assert_eq!(upload(&weir, greet.clone(), &ada.sign(&greet)).await.status, 422);
    upload(&weir, greet.clone(), &eve.sign(&greet)).await.expect(200);
    assert_eq!(error(&weir, &call).await, Value::Null);
    for (settings, says) in [
        (&["plugin_signature_required=true"][..], "no key is trusted: no plugin could be used"),
        (&["plugin_trusted_keys=ada=weir-ed25519:AAAA"], "is not `weir-ed25519:` and 32 bytes"),
        (&[&format!("plugin_trusted_keys=a={0},b={0}", ada.public)[..]], "stands there twice"),
        (&[&format!("plugin_trusted_keys=a b={}", ada.public)[..]], "`a b` is no name of a key"),
    ] {
        let flags: Vec<String> = settings.iter().map(|setting| format!("--set={setting}")).collect();
        let args: Vec<&str> = ["migrate"].into_iter().chain(flags.iter().map(String::as_str)).collect();
        let dir = TempDir::new().expect("a directory");
        let output = run(dir.path(), &args, &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains("plugin_trusted_keys: ") && text.contains(says), "{text}");
    }
}

#[tokio::test]
async fn a_grant_activates_nothing_that_may_not_be_used() {
    let ada = Author::new();
    let mut weir = Weir::start(&[&format!("plugin_trusted_keys=ada={}", ada.public)]).await;
    let rules = |methods: &[&str]| json!({"http": [{"host": "api.example.com", "methods": methods}]});
    let asks = |version: &str, methods: &[&str]| {
        let request = json!({"name": "misbehave", "version": version, "http": rules(methods)["http"]});
        asking(&bytes("misbehave"), &request)
    };
    let (first, second) = (asks("1", &["GET"]), asks("2", &["GET", "POST"]));
    let grant = async |weir: &Weir, version: &str, methods: &[&str]| {
        let request = weir.request(Method::PUT, &format!("/plugins/misbehave@{version}/grant"));
        answer(request.json(&rules(methods))).await.expect(200)
    };
    upload(&weir, first.clone(), &ada.sign(&first)).await.expect(201);
    assert_eq!(grant(&weir, "1", &["GET"]).await["status"], "active");
    assert_eq!(weir.upload(second.clone()).await.expect(201)["status"], "waiting");
    weir.set("plugin_signature_required=true");
    weir.kill();
    weir.restart().await;
    // What it is granted is kept, and the name means what it meant.
    let granted = grant(&weir, "2", &["GET"]).await;
    assert_eq!((&granted["status"], &granted["grant"]["http"][0]["methods"]), (&json!("waiting"), &json!(["GET"])));
    assert_eq!(weir.get("/plugins/misbehave").await.expect(200)["version"], "1");
    assert!(weir.line_with("goes on waiting").await.contains("it is not signed"));
    std::fs::write(ada.dir.path().join("grant.json"), rules(&["POST"]).to_string()).expect("written");
    let (ok, text) = ada.weir(&["grant", "misbehave@2", "grant.json", "--server", &weir.url("/")]);
    assert!(ok && text.contains("misbehave@2 is waiting") && text.contains("or says why not"), "{text}");
    let (ok, text) = ada.weir(&["activate", "misbehave@2", "--server", &weir.url("/")]);
    assert!(!ok && text.contains("plugin_signature_required"), "{text}");
    // Signed, it becomes active when somebody says so.
    assert_eq!(upload(&weir, second.clone(), &ada.sign(&second)).await.expect(200)["status"], "waiting");
    let (ok, text) = ada.weir(&["activate", "misbehave@2", "--server", &weir.url("/")]);
    assert!(ok && text.contains("misbehave@2 is active"), "{text}");
}

/// Changes one byte of a stored value while the server is down.
async fn flip(weir: &mut Weir, table: &str, column: &str, at: usize) {
    weir.terminate().await;
    let path = weir.dir().join("data/weir.db");
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.expect("opens");
    let select = sqlx::AssertSqlSafe(format!("SELECT {column} FROM {table}"));
    let mut value: Vec<u8> = sqlx::query_scalar(select).fetch_one(&mut connection).await.expect("one row");
    value[at] ^= 0x20;
    let update = sqlx::AssertSqlSafe(format!("UPDATE {table} SET {column} = $1"));
    sqlx::query(update).bind(value).execute(&mut connection).await.expect("changed");
    connection.close().await.expect("closed");
    weir.restart().await;
}

#[tokio::test]
async fn a_change_in_the_database_is_noticed_also_where_no_signature_is_required() {
    let ada = Author::new();
    let keys = format!("plugin_trusted_keys=ada={}", ada.public);
    let mut weir = Weir::start(&[&keys]).await;
    let greet = bytes("greet");
    weir.upload(greet.clone()).await.expect(201);
    let call = workflow(&weir).await;
    let component = component(&greet);
    let request = component.windows(12).rposition(|window| window == b"weir:request").expect("a request");
    // Its code is in the cache, which makes no difference.
    let unusable = async |weir: &Weir, what: &str, says: &str| {
        let error = error(weir, &call).await;
        assert_eq!(error["code"], "plugin_unusable", "{what}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{what}: {error}");
    };
    for at in [0, 5_000, component.len() / 2, request + 20, component.len() - 1] {
        flip(&mut weir, "plugins", "component", at).await;
        unusable(&weir, &format!("byte {at}"), "the component is not what its digest says").await;
        flip(&mut weir, "plugins", "component", at).await;
    }
    assert_eq!(error(&weir, &call).await, Value::Null);
    upload(&weir, greet.clone(), &ada.sign(&greet)).await.expect(200);
    for (table, column, at, says) in [
        ("plugins", "component", 5_000, "its signature is not one of this component"),
        ("plugins", "component", request + 20, "its signature is not one of this component"),
        ("plugin_signatures", "signature", 0, "its signature is not one of this component"),
        ("plugin_signatures", "signature", 63, "its signature is not one of this component"),
    ] {
        flip(&mut weir, table, column, at).await;
        unusable(&weir, column, says).await;
        flip(&mut weir, table, column, at).await;
    }
    flip(&mut weir, "plugin_signatures", "signed_by", 3).await;
    assert_eq!(error(&weir, &call).await["code"], "plugin_unusable");
    flip(&mut weir, "plugin_signatures", "signed_by", 3).await;
    assert_eq!(error(&weir, &call).await, Value::Null);
}
