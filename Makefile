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

# What runs in virtual machines: what the running kernel may lack the features for, or what
# differs by kernel. Of the kernel engine that is little: its programs are verified in an
# emulated processor, which takes long. 6.1 is the minimum, and proves that the same works there.
VM_REALM      ?= ^Test(Apply|Activate|Foreign|Guard|Idempotent|InterfaceMoves|LateTrunk|NextHops|OutOfVRF|Overlap|Priorities|Removal|Repair|Replacement|Restart|ServiceTag|SharedTrunk|TableMoves|Twenty|Unreadable|Untagged|WeakHost)$$
VM_GATES      ?= ^Test(Gates|Xfrm.*|ClearText|TunnelMTU|VerifierBudget)$$
VM_IPSEC      ?= .
VM_TUNNELS    ?= .
VM_REALM_61   ?= ^Test(Apply|Activate|Guard|Idempotent|OutOfVRF|Overlap|Removal|TableMoves|WeakHost)$$
VM_IPSEC_61   ?= ^Test(TunnelComesUp|Rekey|CrashOfCharon|ManualKeyChangeLosesNothing|AssociationsAddUp)$$
VM_GATES_61   ?= ^Test(Gates|Xfrm|ClearText|TunnelMTU|VerifierBudget)$$
VM_TUNNELS_61 ?= ^Test(OverlappingCarriers|PrimaryCut)$$
# Time limit of one package's tests.
VM_TIMEOUT    ?= 30m
# Emulated processors stall with their host. What fails in a machine is run once more, and both
# runs are shown; VM_RERUN= asks for none.
VM_RERUN      ?= --rerun-fails=1

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
	@# Without cgo they run in the virtual machine too, whatever C library it has.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(GO_LDFLAGS)' -o $(BIN)/ ./cmd/...

.PHONY: demo
demo: ## calls, VLANs and tunnels through the gateway, in a virtual machine if this kernel lacks them; ENGINE=auto|kernel|userspace
	@tests/deps.sh lab vm
	@$(MAKE) --no-print-directory build
	@mkdir -p $(OUT)
	@$(ROOT) $(BIN)/tandem-lab demo --engine $(ENGINE) --out $(OUT)/demo.json

.PHONY: test
test: ## every test, end to end included; says what was skipped and why
	@tests/deps.sh lab test
	@$(MAKE) --no-print-directory build
	$(GO) tool gotestsum --format pkgname -- $(GO_EXEC) -race -timeout 20m \
		$$($(GO) list ./pkg/... ./cmd/...) $$($(GO) list ./tests/... | grep -vE '/(e2e|scenarios|tunnels|vmlab)$$')
	$(GO) tool gotestsum --format testname -- $(GO_EXEC) -p 1 -count 1 -timeout 20m ./tests/e2e/... ./tests/scenarios
	@# What has a limit in time, again without the race detector: with it the limits are ten times as wide.
	$(GO) tool gotestsum --format testname -- $(GO_EXEC) -p 1 -count 1 -run '10000Calls|TenThousandCalls' ./pkg/app ./pkg/media ./pkg/datapath
	@$(MAKE) --no-print-directory test-vm

# vm_test KERNEL,PACKAGE,TESTS: go test in a virtual machine. It is go test that ends a machine
# that takes too long, since the test then says where it was.
vm_test = CGO_ENABLED=0 $(GO) tool gotestsum --format testname $(VM_RERUN) --packages $(2) -- \
	-exec '$(ROOT) $(CURDIR)/$(BIN)/tandem-lab vm --kernel $(1) --timeout 2h' -p 1 -count 1 -timeout $(VM_TIMEOUT) -run '$(3)'

.PHONY: test-vm
test-vm: ## VLAN, VRF and IPsec tests in virtual machines with Debian's kernels 6.12 and 6.1; needs no KVM
	@tests/deps.sh vm
	@$(MAKE) --no-print-directory build
	CGO_ENABLED=0 $(GO) tool gotestsum --format testname -- $(GO_EXEC) -count 1 -timeout $(VM_TIMEOUT) ./tests/vmlab
	$(call vm_test,6.12,./pkg/realm,$(VM_REALM))
	$(call vm_test,6.12,./pkg/ipsec,$(VM_IPSEC))
	$(call vm_test,6.12,./pkg/datapath,$(VM_GATES))
	$(call vm_test,6.12,./tests/netlab,^Test(VLAN|Trunk.*)$$)
	$(call vm_test,6.12,./tests/tunnels,$(VM_TUNNELS))
	$(call vm_test,6.1,./pkg/realm,$(VM_REALM_61))
	$(call vm_test,6.1,./pkg/ipsec,$(VM_IPSEC_61))
	$(call vm_test,6.1,./pkg/datapath,$(VM_GATES_61))
	$(call vm_test,6.1,./tests/tunnels,$(VM_TUNNELS_61))

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
	$(GO) test $(GO_EXEC) -run '^$$' -bench XDP -benchtime 500ms -count 5 ./pkg/datapath | tee $(OUT)/gobench.txt
	$(GO) test -run '^$$' -bench Select200 -benchtime 200ms -count 5 ./pkg/trunk | tee -a $(OUT)/gobench.txt
	@$(ROOT) $(BIN)/tandem-lab bench --engine $(ENGINE) --go-bench $(OUT)/gobench.txt --out $(OUT)/bench.json

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
