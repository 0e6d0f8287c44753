# Two commands: `make demo` shows what the scheduler does, `make test` runs everything that CI runs.
# Both install what is missing first, and say so. `make help` lists the rest.

CARGO ?= cargo

.PHONY: help demo test setup-build setup-test fmt clippy doc unit fuzz-check bench header valgrind clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: setup-build ## Build, and show the main job on a simulated host
	$(CARGO) build --release --locked --package vcpu-scheduler
	@scripts/demo $(CARGO) run --release --quiet --locked --package vcpu-scheduler --

test: setup-test fmt clippy doc unit fuzz-check ## Everything that CI runs: format, lints, docs, all tests
	@echo 'make test: everything passed'

setup-build:
	@scripts/setup build

setup-test:
	@scripts/setup test

fmt: ## Check the format
	$(CARGO) fmt --all --check

clippy: ## Check the lints
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings

doc: ## Check the documentation
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --all-features --no-deps --locked --quiet

unit: ## Run all tests: unit, property, snapshot and live ones
	INSTA_UPDATE=no $(CARGO) test --workspace --all-features --locked

fuzz-check: ## Check that the fuzz targets build, as cargo-fuzz would build them
	RUSTFLAGS='--cfg fuzzing -D warnings' $(CARGO) check --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --locked --quiet

bench: ## Run the benchmarks
	$(CARGO) bench --workspace

header: ## Make the C header of plugins anew, after a change to what it is made of
	UPDATE_HEADER=1 $(CARGO) test -p vcpu-policy-api --all-features --test header

valgrind: ## Run the tests of the plugin interface and of the live host under valgrind, which has to be installed
	@scripts/valgrind-abi
	@scripts/valgrind-libvirt

clean: ## Remove what was built
	$(CARGO) clean
