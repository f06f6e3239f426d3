# Everything a newcomer needs: demo, test, bench, install. Each installs what it misses (Debian, root, cargo).
TARGET := x86_64-unknown-linux-musl
BINARY := target/$(TARGET)/release/cauldron
PREFIX ?= /usr/local

.PHONY: build demo test check bench install clean deps-build deps-test deps-bench

build: deps-build
	cargo build --release --locked -p cauldron

# The main job on real input: a helper prepares a MariaDB volume once, the plain server starts, a linked backup
# container dumps it, the dump is verified by restoring it.
demo: build
	scripts/install-packages mmdebstrap
	CAULDRON=$(CURDIR)/$(BINARY) examples/backup/run.sh

test: deps-test
	scripts/run-tests

check: deps-build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench: build deps-bench
	CAULDRON=$(CURDIR)/$(BINARY) scripts/bench

install: build
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/cauldron
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	$(BINARY) man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in contrib/systemd/*; do sed 's|/usr/local/bin|$(PREFIX)/bin|' $$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$unit); done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(BINARY) completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/cauldron
	$(BINARY) completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_cauldron
	$(BINARY) completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/cauldron.fish

clean:
	cargo clean

deps-build:
	scripts/install-packages gcc musl-tools
	scripts/install-target $(TARGET)

deps-test: deps-build
	scripts/install-packages busybox-static mmdebstrap docker.io docker-compose docker-registry apache2-utils iproute2 nftables procps jq systemd e2fsprogs openssl curl openssh-server openssh-client python3-venv age git bzip2 xz-utils
	scripts/install-clients

deps-bench: deps-build
	scripts/install-packages busybox-static hyperfine docker.io docker-compose podman runc jq iproute2 python3 mmdebstrap docker-registry skopeo
