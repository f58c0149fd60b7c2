# The commands that people need. `make help` lists them.

CARGO ?= cargo
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test bench scale instructions check

help: ## list the commands
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## build, and see it work: a small bookstore whose routes you can edit while it runs
	$(CARGO) build --locked --profile quick -p lateen
	target/quick/lateen demo $(ARGS)

test: ## all tests; with real Envoy beside Lateen when scripts/install-envoy has installed it
	$(CARGO) build --locked -p lateen
	$(CARGO) test --locked --workspace --no-fail-fast

bench: ## CPU time, latency and memory beside Envoy, nginx and HAProxy (ARGS="--help" for more)
	$(CARGO) build --locked --release -p lateen -p lateen-bench
	bench/run $(ARGS)

scale: ## what compilation costs for meshes of 1,000 to 10,000 services (ARGS="--help" for more)
	$(CARGO) build --locked --release -p lateen-bench --bin bench-compile
	target/release/bench-compile $(ARGS)

instructions: ## instructions for one request, counted by callgrind
	$(CARGO) build --locked --release -p lateen -p lateen-bench
	bench/instructions $(ARGS)

check: ## format and lints, as the gate wants them
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
