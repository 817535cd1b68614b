//! Guests in the text of WebAssembly, for tests of what no compiler would write. Each has one tool, `attack`, and does one
//! thing. Never the way to write a plugin.

use wasm_encoder::Encode as _;
use weir_host::plugin::Artifact;

/// A guest of which a test says what it does.
pub struct Guest<'g> {
    /// The plugin's name.
    pub name: &'g str,
    /// The schema of its tool, as text.
    pub schema: &'g str,
    /// Fields of the module.
    pub more: &'g str,
    /// How it lists its tools: the body of a function that answers with the address of a list. At 512 is the right one.
    pub list: &'g str,
    /// How it answers a call, in the same way; `$answer` makes an answer of JSON text.
    pub call: &'g str,
}

/// One that does as it should: it answers with its arguments.
pub const SOUND: Guest<'static> = Guest {
    name: "sound",
    schema: r#"{"type":"object"}"#,
    more: "",
    list: "(i32.const 512)",
    call: "(call $answer (i32.load offset=8 (local.get 0)) (i32.load offset=12 (local.get 0)))",
};

/// Where the schema stands, and bytes of a page of memory.
const SCHEMA_AT: usize = 1 << 16;
const PAGE: usize = 1 << 16;

impl Guest<'_> {
    /// The core module, as a compiler would leave it.
    ///
    /// # Panics
    /// When the text is not sound.
    #[must_use]
    pub fn module(&self) -> Vec<u8> {
        let Self { name, schema, more, list, call } = self;
        let heap = (SCHEMA_AT + schema.len()).next_multiple_of(PAGE);
        let pages = heap / PAGE + 16;
        let (length, data) = (schema.len(), escaped(schema));
        module(&format!(
            r#"(module
  (@custom "weir:request" "{{\22name\22:\22{name}\22,\22version\22:\221\22}}")
  (memory (export "memory") {pages})
  (global $free (mut i32) (i32.const {heap}))
  (data (i32.const 16) "attack")
  (data (i32.const {SCHEMA_AT}) "{data}")
  {more}
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $length i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $length)))
    (local.get $at))
  (func (export "weir:plugin/tools@0.1.0#list-tools") (result i32)
    (i32.store (i32.const 1024) (i32.const 16))
    (i32.store (i32.const 1028) (i32.const 6))
    (i32.store (i32.const 1056) (i32.const {SCHEMA_AT}))
    (i32.store (i32.const 1060) (i32.const {length}))
    (i32.store (i32.const 512) (i32.const 1024))
    (i32.store (i32.const 516) (i32.const 1))
    {list})
  (func $answer (param $text i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 2072) (i32.const 1))
    (i32.store (i32.const 2076) (local.get $text))
    (i32.store (i32.const 2080) (local.get $length))
    (i32.const 2048))
  (func (export "weir:plugin/tools@0.1.0#call-tool") (param i32) (result i32)
    {call}))"#
        ))
    }

    /// The component that the host makes of it.
    ///
    /// # Panics
    /// When it makes none.
    #[must_use]
    pub fn component(&self) -> Vec<u8> {
        Artifact::admit(&self.module()).expect("a plugin").component
    }

    /// The component with another one inside, which nobody uses.
    ///
    /// # Panics
    /// When the text of that is not sound.
    #[must_use]
    pub fn around(&self, inside: &str) -> Vec<u8> {
        let mut component = self.component();
        put(&mut component, 4, &wat::parse_str(inside).expect("sound"));
        component
    }
}

/// Appends a section to a component.
pub fn put(component: &mut Vec<u8>, id: u8, section: &[u8]) {
    component.push(id);
    section.encode(component);
}

/// `text` as WebAssembly writes it between quotes.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:02x}")).collect()
}

/// The core module of `text`, with the types of the contract inside.
///
/// # Panics
/// When the text is not sound.
#[must_use]
pub fn module(text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    module.extend(contract());
    module
}

/// The section with the types of the contract: the plugin of `weir bench` has it.
fn contract() -> Vec<u8> {
    let bench = weir::bench::module().expect("a plugin");
    let mut at = 8;
    while at < bench.len() {
        let (id, begins) = (bench[at], at);
        let (mut size, mut shift) = (0, 0);
        loop {
            at += 1;
            size |= usize::from(bench[at] & 0x7f) << shift;
            shift += 7;
            if bench[at] < 0x80 {
                break;
            }
        }
        let content = at + 1;
        at = content + size;
        if id == 0 && bench[content + 1..].starts_with(b"component-type") {
            return bench[begins..at].to_vec();
        }
    }
    panic!("the plugin of `weir bench` does not say what it is");
}
