# layerd: everything a newcomer types. Each recipe works from a clean clone on Debian 12 as root.

SHELL := /bin/bash
CARGO ?= cargo
# Files that the recipes make (rootfs archives, demo stores); removed by `make clean`.
WORK := .work

.PHONY: all setup build run test lint unit e2e bench install clean

all: build

# Installs Debian packages that the build and the tests need; does nothing when they are there.
setup:
	tests/scripts/setup.sh build

build: setup
	$(CARGO) build --release --locked

# The main job: a real Debian image is imported, a container runs on it, its changes are shown.
run: build
	tests/scripts/setup.sh run
	tests/scripts/demo.sh $(WORK)

# Everything that continuous integration asks.
test: setup
	tests/scripts/setup.sh test
	$(MAKE) lint unit

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

# Unit, conformance and end-to-end tests, then a look whether anything was left behind.
unit:
	$(CARGO) build --workspace --bins --locked
	tests/scripts/leftovers.sh before $(WORK)
	status=0; $(CARGO) test --workspace --locked --no-fail-fast || status=$$?; \
	tests/scripts/leftovers.sh after $(WORK) || status=1; exit $$status

# Tables and plots of the benchmarks; see docs/benchmarks.md.
bench: build
	tests/scripts/setup.sh bench
	$(CARGO) bench -p benches --locked

install: build
	install -D -m 0755 -t $(DESTDIR)/usr/local/bin \
		target/release/layerd target/release/layerctl target/release/layerun \
		target/release/layerfs

clean:
	$(CARGO) clean
	rm -rf $(WORK)
