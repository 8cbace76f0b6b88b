# flowtel. `make run` shows connections as they begin on this machine; `make test` passes the tests here.
# Further: make help

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Arguments for flowtel: make run ARGS="--endpoint http://127.0.0.1:4317"
ARGS ?=
# The oldest Rust that builds flowtel. scripts/dist/check-versions.sh compares all the places that name it.
MSRV := 1.89

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build ## Build, and print each TCP connection as it begins (root by sudo where needed); ARGS="..." for flowtel
	@if [ "$$(id -u)" = 0 ]; then exec $(TARGET)/debug/flowtel $(ARGS); else exec sudo $(TARGET)/debug/flowtel $(ARGS); fi

.PHONY: build
build: need-cargo
	@$(CARGO) build --locked -p flowtel

.PHONY: release
release: need-cargo ## The optimized binary, target/release/flowtel
	@$(CARGO) build --locked --release -p flowtel

.PHONY: test
test: need-cargo ## Unit tests, property tests, and tests with the real kernel and a real collector
	@scripts/prepare-tests
	@tests/stack/build.sh otelcol || echo "make test: no collector could be built: the tests that need one are skipped" >&2
	@$(CARGO) build --locked -p flowtel
	@$(CARGO) test --locked --workspace --all-features

.PHONY: test-models
CASES ?= 10000
test-models: need-cargo ## The queues against their models, with CASES=10000 of operations, faults and crashes (a minute or two)
	@PROPTEST_CASES=$(CASES) $(CARGO) test --locked -p flowtel --lib -- queue::

.PHONY: test-slow
test-slow: need-cargo release ## Hostile load as long and hard as the goals say, with the optimized flowtel; figures are printed (root)
	@scripts/prepare-tests
	@tests/stack/build.sh otelcol
	@$(CARGO) build --locked -p flowtel
	@FLOWTEL_TESTS=slow FLOWTEL_TESTS_ROOMS=hostile,slow $(CARGO) test --locked -p flowtel-tests --test kernel
	@FLOWTEL_TESTS=slow $(CARGO) test --locked -p flowtel-tests --test kernel -- "two thousand older"

.PHONY: test-replay
test-replay: need-cargo ## A capture of each encapsulation, made by scapy and by the kernel's tunnels, read by tshark and by flowtel replay
	@$(CARGO) build --locked -p flowtel
	@tests/replay/run.sh $${FLOWTEL:-$(TARGET)/debug/flowtel}

.PHONY: test-delivery
# The percentage of the full time and numbers. FLOWTEL=target/debug/flowtel tests another program than the optimized one.
FLOWTEL_DELIVERY ?= 100
test-delivery: need-cargo ## Delivery in full: kills, an outage, reloads, 10,000 records/s (root, 20 min); FLOWTEL_DELIVERY=10: a tenth
	@tests/stack/build.sh otelcol
	@[ -n "$$FLOWTEL" ] || $(CARGO) build --locked --release -p flowtel
	@FLOWTEL_DELIVERY=$(FLOWTEL_DELIVERY) $(CARGO) test --locked -p flowtel-tests --test delivery -- $(ARGS)

.PHONY: test-stores
test-stores: ## What docs/loki.md and docs/elastic.md say, asked of a real Loki, Elasticsearch and OpenSearch (builds Loki: 6 to 15 minutes)
	@tests/stack/build.sh otelcol loki grafana elasticsearch opensearch prometheus
	@python3 tests/stack/sample.py
	@python3 tests/stack/queries.py
	@python3 tests/stack/boards.py
	@python3 tests/stack/kibana.py
	@python3 tests/stack/receivers.py
	@python3 tests/stack/elastic.py
	@python3 tests/stack/opensearch.py

.PHONY: bench-stores
RECORDS ?= 10000000
bench-stores: ## Bytes a record in Loki and how long queries take over RECORDS=10000000 (half an hour, 2 GB)
	@tests/stack/build.sh loki
	@RECORDS=$(RECORDS) python3 tests/stack/volume.py

.PHONY: test-servers
test-servers: release ## Whom records name: nginx, haproxy, redis, node, Go, Python, 10,000 connections each (root, 5 min); ARGS="nginx"
	@python3 tests/servers/table.py $(ARGS)

.PHONY: test-compose
test-compose: ## docker-compose.yml and the configurations it mounts, by their own validators
	@tests/stack/validate.sh

.PHONY: test-kubernetes
test-kubernetes: build ## flowtel's chart in a real one-node Kubernetes, built from Go modules (root; 5 min, cold 20); ARGS="rolling" for some
	@tests/stack/build.sh helm kubernetes coredns gateway node otelcol
	@FLOWTEL=$${FLOWTEL:-$(TARGET)/debug/flowtel} python3 tests/kubernetes/run.py $(ARGS)

.PHONY: test-chart
test-chart: ## helm lint, the values' schema, and whether deploy/kubernetes is what the chart renders
	@tests/stack/build.sh helm
	@python3 tests/kubernetes/chart.py

.PHONY: docs-kubernetes
docs-kubernetes: ## Write deploy/kubernetes/*.yaml, rendered from the chart
	@tests/stack/build.sh helm
	@python3 tests/kubernetes/chart.py --write

.PHONY: test-sidecar
test-sidecar: build ## docker-compose.sidecar.yml on a real docker engine, Debian trixie's in a chroot of its own (root, a minute and the download)
	@tests/stack/build.sh otelcol
	@python3 tests/stack/sidecar.py

.PHONY: test-kernels
test-kernels: build ## Smoke test and scenarios in Debian's 5.10, 6.1, 6.12 and newest kernels under qemu (an hour and a half); SUITES="bullseye" ROOMS="life,names"
	@scripts/prepare-tests
	@tests/stack/build.sh otelcol
	@$(CARGO) test --locked -p flowtel-tests --test kernel --no-run
	@FLOWTEL=$${FLOWTEL:-$(TARGET)/debug/flowtel} tests/vm/kernels.sh $(SUITES)

.PHONY: test-arm64
test-arm64: ## The smoke test on arm64, in Debian's 6.1 and 6.12 under qemu, with the static binary of a release; SUITES="bullseye"
	@scripts/dist/tools.sh
	@ARCH=aarch64 FLOWTEL=$${FLOWTEL_ARM64:-$$(scripts/dist/binary.sh aarch64)} tests/vm/kernels.sh $(or $(SUITES),bookworm trixie)

.PHONY: docs-platforms
docs-platforms: ## Write docs/platforms.md: the smoke test on Debian's kernels from 5.10 (x86-64) and 6.1 (arm64) on
	@scripts/dist/tools.sh
	@PLATFORMS=docs/platforms.md ROOMS= FLOWTEL=$$(scripts/dist/binary.sh x86_64) tests/vm/kernels.sh $(SUITES)
	@PLATFORMS=docs/platforms.md ARCH=aarch64 FLOWTEL=$$(scripts/dist/binary.sh aarch64) tests/vm/kernels.sh $(or $(SUITES),bookworm trixie)

.PHONY: fuzz
SECONDS_EACH ?= 60
fuzz: ## Random input for all that reads bytes from outside, SECONDS_EACH=60 a target; wants a C++ compiler
	@fuzz/run.sh $(SECONDS_EACH)

.PHONY: bench
bench: need-cargo ## What flowtel costs: stages by criterion, then packets and live load (root), begins alone and everything
	@$(CARGO) bench --locked -p flowtel
	@$(CARGO) build --locked --release -p flowtel
	@$(CARGO) build --locked --release -p flowtel-bench
	@$(TARGET)/release/flowtel-bench --begins
	@$(TARGET)/release/flowtel-bench

.PHONY: lint
lint: need-cargo ## Formatting, clippy with warnings denied, licences and sources of dependencies
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	@$(CARGO) deny --locked check bans licenses sources

.PHONY: advisories
advisories: ## Known vulnerabilities of dependencies (fetches the advisory database)
	@$(CARGO) deny --locked check advisories

.PHONY: ebpf
ebpf: ## Build the kernel object anew (exporter-ebpf/install.sh installs what it needs on Debian)
	@exporter-ebpf/build.sh exporter/bpf/flowtel.bpf.o

.PHONY: ebpf-check
ebpf-check: ## Check that the checked-in kernel object belongs to its sources
	@exporter-ebpf/check.sh

.PHONY: docs
docs: build ## Write the generated pages: docs/configuration.md, docs/schema.md, docs/metrics.md, config/flowtel.toml, Grafana's and Kibana's files
	@$(TARGET)/debug/flowtel config --reference > config/flowtel.toml
	@$(TARGET)/debug/flowtel config --reference-docs > docs/configuration.md
	@$(TARGET)/debug/flowtel schema > docs/schema.md
	@$(TARGET)/debug/flowtel schema --metrics > docs/metrics.md
	@FLOWTEL_WRITE=1 $(CARGO) test --locked --quiet -p flowtel --lib -- the_picture_of_the_docs > /dev/null
	@scripts/grafana/build.py
	@scripts/kibana.py
	@$(TARGET)/debug/flowtel schema --format weaver-manifest > schema/registry/manifest.yaml
	@$(TARGET)/debug/flowtel schema --format weaver > schema/registry/flowtel.yaml
	@$(TARGET)/debug/flowtel schema --format json-schema > schema/log-record.schema.json

.PHONY: image
image: ## The container image flowtel:latest
	docker build -t flowtel:latest .

.PHONY: dist
dist: ## A whole release in target/dist: tar.gz, deb, rpm and image for x86-64 and arm64, sums, SBOM (RELEASING.md)
	@scripts/dist/check-versions.sh
	@scripts/dist/dist.sh

.PHONY: test-dist
test-dist: ## The release again, from another folder, by another user with another umask: the same bytes (root, after make dist)
	@scripts/dist/test-reproducible.sh

.PHONY: test-packages
test-packages: ## deb and image used under real systemds, rpm by rpm's tools, lintian (root, after make dist); SUITES="trixie"
	@tests/packages/run.sh $(SUITES)

.PHONY: test-workflows
test-workflows: ## The workflows by actionlint, the scripts of a release by shellcheck, and the numbers they share
	@scripts/dist/check-versions.sh
	@scripts/dist/check-workflows.sh

.PHONY: msrv
msrv: need-cargo ## Check that the oldest Rust that README names builds flowtel (rustup fetches it)
	@CARGO_TARGET_DIR=$(TARGET)/msrv cargo +$(MSRV) check --locked -p flowtel

.PHONY: need-cargo
need-cargo:
	@command -v $(CARGO) >/dev/null || { echo "make: Rust is missing. https://rustup.rs has it, or your distribution (1.89 or newer)." >&2; exit 69; }
	@command -v cc >/dev/null || { echo "make: a C compiler is missing (Debian: apt-get install build-essential)." >&2; exit 69; }
