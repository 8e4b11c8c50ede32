# offhook: `make demo` runs the main job, `make test` runs every test. Both bring what they need on a Debian machine and
# say so; on another system they name what is missing.

SHELL := /bin/bash
CARGO ?= cargo
OUT ?= out

.PHONY: demo test soak bench lint deny build-needs test-needs help

help:
	@echo "make demo   two endpoints call each other on this machine; recordings in $(OUT)/"
	@echo "make test   every test, with real servers on loopback addresses"
	@echo "make soak   the long runs: a million generated sequences, thousands of set-ups under loss, 5 GiB cut twice"
	@echo "make deny   licences, sources and banned crates of every dependency (needs cargo-deny)"
	@echo "make bench  the figures of the README, each beside its peer"

demo: build-needs
	$(CARGO) run --release --locked -- demo --out $(OUT)

test: build-needs test-needs lint
	$(CARGO) check --locked --no-default-features --lib
	$(CARGO) test --locked --lib --bins --tests --examples
	$(CARGO) test --locked --doc
	$(CARGO) test --locked --features audio-device --test media_device
	$(CARGO) test --locked --manifest-path tests/oracles/Cargo.toml --target-dir target/oracles

lint: build-needs
	$(CARGO) fmt --check
	$(CARGO) fmt --manifest-path tests/oracles/Cargo.toml --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null 2>&1; then $(MAKE) --no-print-directory deny; \
	else echo "lint: without cargo-deny the licences are not checked (cargo install --locked cargo-deny)"; fi

# The advisories want the RustSec database from the network: `cargo deny --config .deny.toml check advisories`.
deny:
	$(CARGO) deny --offline --locked --config .deny.toml check licenses bans sources

soak: build-needs test-needs
	OFFHOOK_SEQUENCES=1000000 OFFHOOK_SEEDS=2000 OFFHOOK_FILE_BYTES=5368709120 $(CARGO) test --locked --release --lib --tests

bench: build-needs
	$(CARGO) bench --locked
	$(CARGO) bench --locked --manifest-path tests/oracles/Cargo.toml --target-dir target/oracles

build-needs:
	@.ci/needs build

test-needs:
	@.ci/needs test
