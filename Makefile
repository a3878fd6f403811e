# Baton. `make demo` shows it, `make test` tests it; see README.md.

SHELL := /bin/bash
PYTHON := /usr/bin/python3
CARGO ?= cargo
# Network namespaces, raw sockets and DPDK need root; building does not.
SUDO := $(shell [ "$$(id -u)" = 0 ] || { command -v sudo >/dev/null && echo "sudo --preserve-env=BATON,CI,NO_COLOR,PATH"; })
# Where rustup puts cargo, for shells that were opened before.
export PATH := $(PATH):$(HOME)/.cargo/bin
# Tests that make namespaces run as root even when a user builds.
ifneq ($(SUDO),)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(SUDO)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := $(SUDO)
endif

# Steps share two cores and one build folder: one after the other is fastest.
.NOTPARALLEL:
.PHONY: help demo demo-end test lint units instructions e2e recordings bench fuzz schemathesis build deb test-deb test-docker test-vfio testpmd test-testpmd deps rust clean

help:
	@echo "make demo          direct routing on this machine, in network namespaces (KEEP=1 leaves it running)"
	@echo "make demo-end      ends what KEEP=1 left running (LAB=its name)"
	@echo "make test          lint, units, instructions, e2e, recordings, testpmd; CI runs these and test-vfio"
	@echo "make lint          formatting and clippy"
	@echo "make units         unit, property and binding tests"
	@echo "make instructions  that no stage of the packet path executes more instructions than allowed (ARGS=--update allows them)"
	@echo "make e2e           the real binary with real clients and servers (ARGS=... goes to pytest)"
	@echo "make recordings    what the kernel's IPVS did, played against the director (ARGS=... goes to pytest)"
	@echo "make testpmd       dpdk-testpmd and kernel clients: no loss at half of the measured rate for 5 s (test-testpmd: for a minute)"
	@echo "make bench         speed, each figure beside its target and its limit (QUICK=1 for a look; ARGS=--help)"
	@echo "make fuzz          cargo-fuzz against a reference director (SECONDS=... says how long)"
	@echo "make schemathesis  the API against its OpenAPI document, for a minute (from PyPI)"
	@echo "make build         target/release/baton"
	@echo "make deb           target/debian/baton_VERSION_amd64.deb"
	@echo "make test-deb      that package: lintian, and install, upgrade, remove, purge and boot in a Debian of its own"
	@echo "make test-docker   the image and the compose lab, built and run by a Docker of their own; hadolint"
	@echo "make test-vfio     that package on NICs: the operator's guide in an emulated machine with an IOMMU, and what then must hold"
	@echo "make deps          Debian packages that building and testing need"
	@echo "make clean         removes what was built"

demo: build
	@$(SUDO) $(PYTHON) -I tests/demo.py $(if $(filter-out 0,$(KEEP)),--keep)

demo-end:
	@$(SUDO) $(PYTHON) -I tests/demo.py --end "$(LAB)"

test: lint units instructions e2e recordings testpmd

lint: deps rust
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

units: deps rust
	$(CARGO) test --workspace --locked

instructions: deps rust
	@$(SUDO) $(PYTHON) -I tests/instructions.py $(ARGS)

e2e: build
	$(SUDO) $(PYTHON) -m pytest tests/e2e --ignore=tests/e2e/test_schemathesis.py $(ARGS)

# Fetches schemathesis from PyPI, which nothing else needs.
schemathesis: build
	$(SUDO) $(PYTHON) -m pytest tests/e2e/test_schemathesis.py $(ARGS)

recordings: build
	$(SUDO) $(PYTHON) -m pytest tests/oracle $(ARGS)

testpmd: build
	@tests/deps.sh dpdk-dev
	$(SUDO) $(PYTHON) -m pytest tests/testpmd $(ARGS)

test-testpmd:
	@$(MAKE) --no-print-directory testpmd ARGS="--seconds 60 -s $(ARGS)"

bench: build
	@tests/deps.sh dpdk-dev
	@$(CARGO) bench --quiet --locked --no-run --package dataplane --bench rows
	@$(SUDO) $(PYTHON) tests/bench $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

# Needs a nightly compiler and cargo-fuzz; nothing else does. Inputs that reach new branches go to dataplane/fuzz/target/corpus.
SECONDS ?= 600
fuzz: deps rust
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: rustup toolchain install nightly && cargo install cargo-fuzz" >&2; exit 1; }
	mkdir -p dataplane/fuzz/target/corpus
	cd dataplane/fuzz && ASAN_OPTIONS=detect_leaks=0 $(CARGO) +nightly fuzz run --fuzz-dir . worker target/corpus corpus/worker -- -max_total_time=$(SECONDS) -max_len=4096 $(ARGS)

build: deps rust
	@[ -x target/release/baton ] || echo "Building baton; the first time takes some minutes."
	$(CARGO) build --release --locked --package control --bin baton

deb: build
	@tests/deps.sh debhelper
	@configs/debian/build

test-deb: deb
	@tests/deps.sh debhelper lintian debootstrap systemd-container
	$(SUDO) $(PYTHON) -m pytest tests/package $(ARGS)

# The first run takes long: a Debian by debootstrap, and the program built anew inside the image. All of it is kept in target/docker.
test-docker: deps rust
	@tests/deps.sh docker.io docker-compose debootstrap python3-pip
	$(SUDO) $(PYTHON) -m pytest tests/docker $(ARGS)

test-vfio: deb
	@tests/deps.sh debhelper debootstrap fdisk e2fsprogs qemu-system-x86
	$(SUDO) $(PYTHON) -m pytest -vv --capture=sys tests/vfio $(ARGS)

deps:
	@tests/deps.sh

rust:
	@command -v $(CARGO) >/dev/null || { \
	  echo "cargo is missing. Install Rust with:" >&2; \
	  echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$$HOME/.cargo/env\"" >&2; exit 1; }

clean:
	$(CARGO) clean
