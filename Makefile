# Everything Tandem needs done has one target here. `make help` lists them.

SHELL     := /bin/bash
OUT       := out
BIN       := bin
ENGINE    ?= auto
FUZZTIME  ?= 20s
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO        ?= go
# Namespaces, XDP and packet sockets need root; nothing else here does.
ROOT      := $(if $(filter 0,$(shell id -u)),,sudo -E env "PATH=$$PATH:/usr/sbin:/sbin")
# Tests are built as the caller and only run as root, so that no cache changes hands.
GO_EXEC   := $(if $(ROOT),-exec '$(ROOT)')
GO_LDFLAGS := -X main.version=$(VERSION)

# What make generate writes and the tree keeps.
GENERATED := pkg/datapath/tandem_bpfel.go pkg/datapath/tandem_bpfel.o pkg/datapath/floor_bpfel_test.go pkg/datapath/floor_bpfel_test.o \
	tests/traffic/traffic_bpfel.go tests/traffic/traffic_bpfel.o \
	docs/config.md docs/config.schema.json

.DEFAULT_GOAL := build

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' Makefile

.PHONY: build
build: ## build the daemon, the CLI and the lab into bin/
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '$(GO_LDFLAGS)' -o $(BIN)/ ./cmd/...

.PHONY: demo
demo: ## calls through the gateway in a lab of namespaces; ENGINE=auto|kernel|userspace
	@tests/deps.sh lab
	@$(MAKE) --no-print-directory build
	@mkdir -p $(OUT)
	@$(ROOT) $(BIN)/tandem-lab demo --engine $(ENGINE) --out $(OUT)/demo.json

.PHONY: test
test: ## every test, end to end included; says what was skipped and why
	@tests/deps.sh lab test
	@$(MAKE) --no-print-directory build
	$(GO) tool gotestsum --format pkgname -- $(GO_EXEC) -race -timeout 20m $$($(GO) list ./pkg/... ./cmd/...) $$($(GO) list ./tests/... | grep -v /e2e)
	$(GO) tool gotestsum --format testname -- $(GO_EXEC) -p 1 -count 1 -timeout 20m ./tests/e2e/...
	@# What has a limit in time, again without the race detector: with it the limits are ten times as wide.
	$(GO) tool gotestsum --format testname -- $(GO_EXEC) -p 1 -count 1 -run '10000Calls|TenThousandCalls' ./pkg/app ./pkg/media ./pkg/datapath

.PHONY: check
check: ## formatting, vet, staticcheck, errorlint, layering, generated files
	@tests/deps.sh generate
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	clang-format-16 --dry-run -Werror $$(git ls-files 'bpf/*.c' 'bpf/*.h' 'tests/traffic/bpf/*.c' | grep -v /vendor/)
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) tool go-errorlint ./...
	$(GO) test -count 1 ./tests/layering/
	@before=$$(sha256sum $(GENERATED)) && $(MAKE) --no-print-directory generate && echo "$$before" | sha256sum --check --quiet || \
		{ echo "generated files were stale, and are fresh now: commit them"; exit 1; }

.PHONY: generate
generate: ## compile the BPF programs and rewrite the generated docs
	@tests/deps.sh generate
	$(GO) generate ./...

.PHONY: bench
bench: ## packets and calls per second, ns and latency per packet, CPU per call into out/bench.json
	@tests/deps.sh lab
	@$(MAKE) --no-print-directory build
	@mkdir -p $(OUT)
	$(GO) test $(GO_EXEC) -run '^$$' -bench XDP -benchtime 500ms -count 5 ./pkg/datapath | tee $(OUT)/xdp.txt
	@$(ROOT) $(BIN)/tandem-lab bench --engine $(ENGINE) --go-bench $(OUT)/xdp.txt --out $(OUT)/bench.json

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$(grep -rl '^func Fuzz' --include '*_test.go' pkg | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -rhoE '^func Fuzz[A-Za-z0-9]+' $$pkg/*_test.go | cut -d' ' -f2); do \
			echo "== $$pkg $$target"; $(GO) test $(GO_EXEC) ./$$pkg -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) || exit 1; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built, and remains of labs whose owner is gone
	@[ ! -x $(BIN)/tandem-lab ] || $(ROOT) $(BIN)/tandem-lab down
	rm -rf $(BIN) $(OUT)
