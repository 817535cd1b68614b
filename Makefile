# Thin: every target is a line or two. `make demo` and `make test` need Rust, make and a C compiler; what else they
# need they set up, or say what is missing.

CARGO ?= cargo
SHELF := approve csv-json github-issue html-text schema template
TOOLS ?= $(CURDIR)/target/tools

.PHONY: demo test lint bench chaos fuzz plugins run openapi

demo: ## Show the main job on a real server, with real calls, and again after a kill -9
	@echo "building (the first time takes some minutes) ..."
	@plugins/build.sh --locked --quiet -p transform
	@$(CARGO) build --quiet --locked -p weir
	@$(CARGO) run --quiet --locked -p weir-tests --example demo

test: lint ## Everything that is promised, proved
	@bash tests/tools/system.sh
	@$(MAKE) --no-print-directory plugins
	$(CARGO) build --locked -p weir
	@TOOLS_DIR="$(TOOLS)" bash tests/tools/nextest.sh
	PATH="$(TOOLS)/bin:$$PATH" TOOLS_DIR="$(TOOLS)" $(CARGO) nextest run --locked --workspace --profile ci

bench: ## Measure both modes on servers of its own, beside what the machine could do at most (RUNS=2000 is quicker)
	@bash tests/tools/system.sh
	@$(MAKE) --no-print-directory plugins
	$(CARGO) build --locked --release -p weir
	@weir="$$($(CARGO) metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/weir"; \
		$(CARGO) run --quiet --locked -p weir-tests --example bench -- "$$weir" $${RUNS:-20000}

chaos: ## Ten thousand faults in a cluster under load; takes hours (FAULTS=100 is quicker, SEED=1 is another order)
	@bash tests/tools/system.sh
	$(CARGO) build --locked -p weir
	WEIR_CHAOS_FAULTS=$${FAULTS:-10000} WEIR_CHAOS_SEED=$${SEED:-4711} \
		$(CARGO) test --locked -p weir-tests --test it -- --nocapture the_kill_matrix

fuzz: ## Uploads and arguments that nobody would think of, for longer (ROUNDS=100000 SEED=1)
	@$(MAKE) --no-print-directory plugins
	WEIR_FUZZ_ROUNDS=$${ROUNDS:-100000} WEIR_FUZZ_SEED=$${SEED:-1} \
		$(CARGO) test --locked -p weir-tests --test it -- --nocapture fuzz

lint: ## Format, lints, and (where cargo-deny is installed) licences and sources
	@bash tests/tools/lint.sh

plugins: ## The example plugins, as WebAssembly
	plugins/build.sh --locked $(addprefix -p ,greet transform misbehave misbehave-listing $(SHELF))
	plugins/build-guest.sh $(addprefix plugins/examples/,hello-python misbehave-python hello-javascript)

run: ## A server on http://127.0.0.1:8000, with its state in ./weir-data
	$(CARGO) run --locked -p weir -- serve

openapi: ## The OpenAPI document
	@$(CARGO) run --quiet --locked -p weir -- openapi
