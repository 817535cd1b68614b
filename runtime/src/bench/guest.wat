;; The plugin that `weir bench` measures with: by hand, so that what is measured is the host and not a library.
;; `echo` answers with its arguments; the others do what no tool should.
(module
  (@custom "weir:request" "{\22name\22:\22weir-bench\22,\22version\22:\221\22}")
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 16384))
  (table $table 1 funcref)

  (data (i32.const 16) "echo")
  (data (i32.const 32) "loop")
  (data (i32.const 48) "grow")
  (data (i32.const 64) "deep")
  (data (i32.const 80) "trap")
  (data (i32.const 96) "pour")
  (data (i32.const 112) "step")
  (data (i32.const 160) "wide")
  (data (i32.const 176) "fake")
  (data (i32.const 192) "nest")
  (data (i32.const 128) "{\22type\22:\22object\22}")

  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $length i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $length)))
    (local.get $at))

  ;; One `tool-info` of 96 bytes: a name of 4 bytes and the schema; all else is absent.
  (func $tool (param $at i32) (param $name i32)
    (i32.store (local.get $at) (local.get $name))
    (i32.store offset=4 (local.get $at) (i32.const 4))
    (i32.store offset=32 (local.get $at) (i32.const 128))
    (i32.store offset=36 (local.get $at) (i32.const 17)))

  (func (export "weir:plugin/tools@0.1.0#list-tools") (result i32)
    (call $tool (i32.const 1024) (i32.const 16))
    (call $tool (i32.const 1120) (i32.const 32))
    (call $tool (i32.const 1216) (i32.const 48))
    (call $tool (i32.const 1312) (i32.const 64))
    (call $tool (i32.const 1408) (i32.const 80))
    (call $tool (i32.const 1504) (i32.const 96))
    (call $tool (i32.const 1600) (i32.const 112))
    (call $tool (i32.const 1696) (i32.const 160))
    (call $tool (i32.const 1792) (i32.const 176))
    (call $tool (i32.const 1888) (i32.const 192))
    (i32.store (i32.const 512) (i32.const 1024))
    (i32.store (i32.const 516) (i32.const 10))
    (i32.const 512))

  (func $deep (param $n i64) (result i64)
    (i64.add (call $deep (i64.add (local.get $n) (i64.const 1))) (local.get $n)))

  ;; An answer that is done: a `result` at 512 with an `outcome` at 520 and a `tool-result` at 528.
  (func $answer (param $text i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 536) (i32.const 1))
    (i32.store (i32.const 540) (local.get $text))
    (i32.store (i32.const 544) (local.get $length))
    (i32.const 512))

  (func (export "weir:plugin/tools@0.1.0#call-tool") (param $request i32) (result i32)
    (local $name i32)
    ;; The first letter tells the tools apart.
    (local.set $name (i32.load8_u (i32.load (local.get $request))))
    (if (i32.eq (local.get $name) (i32.const 0x6c)) ;; loop
      (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (local.get $name) (i32.const 0x67)) ;; grow
      (then
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        unreachable))
    (if (i32.eq (local.get $name) (i32.const 0x64)) ;; deep
      (then (drop (call $deep (i64.const 1)))))
    (if (i32.eq (local.get $name) (i32.const 0x74)) ;; trap
      (then unreachable))
    (if (i32.eq (local.get $name) (i32.const 0x70)) ;; pour
      (then
        (drop (memory.grow (i32.const 128)))
        (return (call $answer (i32.const 0) (i32.const 8000000)))))
    (if (i32.eq (local.get $name) (i32.const 0x73)) ;; step
      (then
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
        unreachable))
    (if (i32.eq (local.get $name) (i32.const 0x77)) ;; wide
      (then
        (loop $more
          (br_if $more (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
        unreachable))
    (if (i32.eq (local.get $name) (i32.const 0x66)) ;; fake
      (then (return (i32.const 0x7fffff00))))
    (if (i32.eq (local.get $name) (i32.const 0x6e)) ;; nest
      (then
        (memory.fill (i32.const 65536) (i32.const 0x5b) (i32.const 65536))
        (return (call $answer (i32.const 65536) (i32.const 65536)))))
    ;; echo
    (call $answer (i32.load offset=8 (local.get $request)) (i32.load offset=12 (local.get $request)))))
