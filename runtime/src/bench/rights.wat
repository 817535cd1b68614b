;; The plugin that `weir bench` measures rights with: it is told a setting, and gets a text that stands for a secret.
;; `use` answers with its arguments, and with that text in a block beside them; without one it has no block.
(module
  (@custom "weir:request" "{\22name\22:\22weir-bench-rights\22,\22version\22:\221\22,\22http\22:[{\22host\22:\22api.example.com\22,\22methods\22:[\22GET\22,\22POST\22],\22path_prefix\22:\22/v1\22,\22secrets\22:[\22token\22]}],\22secrets\22:[{\22name\22:\22token\22}],\22settings\22:[{\22name\22:\22colour\22}]}")
  (import "weir:plugin/tool-config@0.1.0" "setting" (func $setting (param i32 i32 i32)))
  (import "weir:plugin/tool-config@0.1.0" "secret-placeholder" (func $placeholder (param i32 i32 i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 16384))

  (data (i32.const 16) "use")
  (data (i32.const 32) "colour")
  (data (i32.const 48) "token")
  (data (i32.const 128) "{\22type\22:\22object\22}")

  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $length i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $length)))
    (local.get $at))

  ;; One `tool-info`: a name and the schema; all else is absent.
  (func (export "weir:plugin/tools@0.1.0#list-tools") (result i32)
    (i32.store (i32.const 1024) (i32.const 16))
    (i32.store (i32.const 1028) (i32.const 3))
    (i32.store (i32.const 1056) (i32.const 128))
    (i32.store (i32.const 1060) (i32.const 17))
    (i32.store (i32.const 512) (i32.const 1024))
    (i32.store (i32.const 516) (i32.const 1))
    (i32.const 512))

  ;; A `result` at 512 with an `outcome` at 520 and a `tool-result` at 528; its one block is at 2048.
  (func (export "weir:plugin/tools@0.1.0#call-tool") (param $request i32) (result i32)
    (call $setting (i32.const 32) (i32.const 6) (i32.const 256))
    (call $placeholder (i32.const 48) (i32.const 5) (i32.const 272))
    (i32.store (i32.const 2056) (i32.load (i32.const 276)))
    (i32.store (i32.const 2060) (i32.load (i32.const 280)))
    (i32.store (i32.const 528) (i32.const 2048))
    (i32.store (i32.const 532) (i32.load8_u (i32.const 272)))
    (i32.store8 (i32.const 536) (i32.const 1))
    (i32.store (i32.const 540) (i32.load offset=8 (local.get $request)))
    (i32.store (i32.const 544) (i32.load offset=12 (local.get $request)))
    (i32.const 512)))
