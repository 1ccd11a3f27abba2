# What people and CI do with this tree. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
GO ?= go
# Git may refuse to tell root of another user's checkout; the build then goes without a revision.
BUILD := $(GO) build -trimpath $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false) \
	$(if $(RELEASE),-ldflags '-s -w -X github.com/pwd-project/pwd/internal/build.version=$(RELEASE)')
export CGO_ENABLED := 0
# Tests and linters take the packages that the programs are built of, whatever folder this tree is in: nothing is compiled twice.
export GOFLAGS := $(strip $(filter-out -trimpath,$(shell $(GO) env GOFLAGS)) -trimpath)
# Where `make install` puts things; DESTDIR goes before it, for packages.
PREFIX ?= /usr
# Where units and the like are looked for.
SYSTEMD ?= /usr/lib
UNITDIR ?= $(SYSTEMD)/systemd/system
# What packages and manual pages say that this is.
VERSION ?= 0.1.0
# On which kernels `make bench` measures: this one, and those of virtual machines.
KERNELS ?= host,6.1,6.12

.DEFAULT_GOAL := build
.PHONY: help build man install install-image install-programs package demo bench bench-publish test test-short test-beside test-alone generate lint fuzz clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## bin/pwd and bin/pwctl
	$(BUILD) -o bin/ ./cmd/pwd ./cmd/pwctl

man: ## manual pages and completions, into out/man
	rm -rf out/man
	GOOS= GOARCH= $(GO) run ./internal/man/generate -o out/man -version '$(VERSION)'

install-programs: build ## programs alone, below PREFIX
	install -D -m 755 bin/pwctl $(DESTDIR)$(PREFIX)/bin/pwctl
	install -D -m 755 bin/pwd $(DESTDIR)$(PREFIX)/libexec/pwd/pwd

install-image: install-programs ## what a container image has, below DESTDIR
	mkdir -p $(DESTDIR)/etc/pwd $(DESTDIR)/run/pwd $(DESTDIR)/var/lib/pwd

install: install-programs man ## programs, service, manual, completions and examples, below PREFIX and /etc
	install -d -m 755 $(DESTDIR)/etc/pwd $(DESTDIR)$(UNITDIR) $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/doc/pwd/examples
	sed 's|/usr/libexec/pwd/pwd|$(PREFIX)/libexec/pwd/pwd|' configs/systemd/pwd.service > $(DESTDIR)$(UNITDIR)/pwd.service
	sed 's|/usr/libexec/pwd/pwd|$(PREFIX)/libexec/pwd/pwd|' configs/systemd/pwd-hold.service > $(DESTDIR)$(UNITDIR)/pwd-hold.service
	chmod 644 $(DESTDIR)$(UNITDIR)/pwd.service $(DESTDIR)$(UNITDIR)/pwd-hold.service
	install -D -m 644 configs/systemd/sysusers.conf $(DESTDIR)$(SYSTEMD)/sysusers.d/pwd.conf
	install -D -m 644 configs/systemd/tmpfiles.conf $(DESTDIR)$(SYSTEMD)/tmpfiles.d/pwd.conf
	install -m 644 out/man/man1/* $(DESTDIR)$(PREFIX)/share/man/man1
	install -D -m 644 configs/man/pwd.8 $(DESTDIR)$(PREFIX)/share/man/man8/pwd.8
	install -D -m 644 out/man/bash-completion/pwctl $(DESTDIR)$(PREFIX)/share/bash-completion/completions/pwctl
	install -D -m 644 out/man/zsh/_pwctl $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_pwctl
	install -D -m 644 out/man/fish/pwctl.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/pwctl.fish
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/pwd/monitoring configs/monitoring/*
	install -m 644 configs/pwd.yaml configs/*.schema.json examples/*.yaml $(DESTDIR)$(PREFIX)/share/doc/pwd/examples

package: ## out/pwd_VERSION-1_ARCH.deb and out/pwd-VERSION-1.ARCH.rpm
	rm -rf out/package out/pwd_*.deb out/pwd-*.rpm
	@umask 022; $(MAKE) --no-print-directory install DESTDIR=out/package PREFIX=/usr SYSTEMD=/usr/lib RELEASE=$(VERSION)
	cd tools && GOOS= GOARCH= $(GO) build -o ../out/ github.com/goreleaser/nfpm/v2/cmd/nfpm
	for kind in deb rpm; do \
		VERSION=$(VERSION) ARCH=$$($(GO) env GOARCH) out/nfpm package -f configs/package/nfpm.yaml -p $$kind -t out/; \
	done

demo: build ## two sites on this machine become one Ethernet (as root)
	@$(BUILD) -o out/ ./test/demo
	@out/demo

bench: build ## measure datapaths, VXLAN, GRETAP, l2tp_eth and the underlay, T (1s) for each value (as root)
	@$(BUILD) -o out/benchmark ./test/bench
	@out/benchmark -kernels $(KERNELS) -each $(or $(T),1s)

bench-publish: ## put the results of the last bench into docs/performance.md and README.md
	$(GO) run ./test/bench -publish

# Beside the first tests, in CI: make test BESIDE=lint.
BESIDE ?=
STAGE := $(MAKE) --no-print-directory

test: ## everything that can be tested, virtual machines included (as root)
	test/setup.sh test
	@$(STAGE) test-short
	$(GO) run ./test/vm/run -suites

test-short: ## the tests that run on this host, without virtual machines
	@$(BUILD) -o out/ ./test/beside
	@trap 'exit 130' INT; failed=0; \
	out/beside $(STAGE) test-beside LATER=out/later $(BESIDE:%=-- nice -n 19 $(STAGE) %) || failed=1; \
	out/beside $(STAGE) test-alone EARLIER=out/later || failed=1; \
	exit $$failed

# Whole sites wait for most of their time: their tests begin first, and run beside the other packages, of which those
# that take longest come first. Those of whole sites that bound a time, a rate or a loss, or keep the machine busy, come
# behind all else, and have it to themselves; so has what fails before.
LONGEST := ./test/e2e ./pkg/pseudowire/tcbpf ./internal/agent ./test/conformance ./pkg/l2tpv3/control ./test/service
test-beside: ## of those the ones that go beside each other
	@$(BUILD) -o out/ ./test/report
	@PWD_ALONE=no out/report -again 3 $(LATER:%=-later %) $(GO) test -json -count=1 -timeout 10m -p 3 $(LONGEST) ./...

test-alone: ## and the ones that have the machine to themselves
	@$(BUILD) -o out/ ./test/report
	@PWD_ALONE=only out/report -again 3 $(EARLIER:%=-earlier %) $(GO) test -json -count=1 -timeout 10m ./test/e2e

generate: ## compile bpf/ again (needs clang 14)
	test/setup.sh generate
	@clang --version | grep -q 'version 14\.' || { echo "make generate: the committed objects are compiled with clang 14; this is $$(clang --version | head -1)" >&2; exit 1; }
	$(GO) generate ./...

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change:" $$unformatted >&2; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags vm,packages ./...
	@cd tools && $(GO) build -o ../out/ honnef.co/go/tools/cmd/staticcheck
	out/staticcheck -tags vm ./...

fuzz: ## every fuzz target for T (default 30s) each
	@failed=; for package in $$($(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' $(or $(FUZZ),./...)); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(or $(T),30s) $$package || failed+=" $$package.$$target"; \
		done; \
	done; \
	[ -z "$$failed" ] || { echo "make fuzz: these failed, and left what they failed on in testdata/fuzz:$$failed" >&2; exit 1; }

clean: ## remove what was built
	rm -rf bin out
