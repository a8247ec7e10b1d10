# make help lists what there is. CI calls these targets and nothing else.

GO      ?= go
FUZZ    ?= 30s
EXPLORE ?= 60s
LINT     = $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
# The newest that can be built from the module proxy: v2.17.0 needs a module that it refuses.
RELEASER = v2.16.0
# The newest whose go.mod does not ask for a newer Go than ours.
HUGO     = v0.165.0
APIDIFF  = v0.0.0-20261113113407-e3970619a1a4
BENCHSTAT = $(GO) run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
VULN     = $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0
MODULES  = . integration evidence examples/mcp otelkeep deploy

# The packages with tests that measure times. Their names end in _Time, and -short skips them.
TIMED = ./agent ./codec/tokenfile ./examples/lambda-extension ./examples/lambda-extension/local ./internal/stored ./tokenstore/filestore ./tokenstore/sqlstore

# What make bench writes, and how often it repeats an operation.
BENCH     ?= $(or $(TMPDIR),/tmp)/tokenkeep-bench.txt
BENCHTIME ?= 20x

# Memory for time: the tests allocate much and keep little.
export GOGC ?= 400

.DEFAULT_GOAL := help
.PHONY: help demo test mariadb languages test-fast test-evidence test-integration test-times full race lint fuzz explore bench bench-stores evidence tidy-check vuln release-check image-check api docs

help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## the main job, on embedded defaults: needs Go and nothing else
	@$(GO) run ./examples/demo

# Much of what the targets do is to wait, so two of them run beside each other. Tests that measure
# times run after them.
test: ## everything that this machine can run, real servers included (as root, it installs MariaDB)
	@$(MAKE) --no-print-directory -j 2 test-fast test-evidence test-integration
	@$(MAKE) --no-print-directory test-times

mariadb:
	@internal/mariadb/install.sh

languages: mariadb # apt-get runs once at a time
	@sdk/install.sh

test-fast: mariadb languages ## the tests of the module: no Docker, and no server but MariaDB
	$(GO) vet ./...
	$(GO) test -short -timeout 25m ./...
	$(GO) -C examples/mcp vet ./...
	$(GO) -C examples/mcp test ./...
	$(GO) -C otelkeep vet ./...
	$(GO) -C otelkeep test ./...
	deploy/prometheus/check.sh
	$(GO) -C deploy vet ./...
	$(GO) -C deploy test ./...

test-evidence: ## every fault at every call, histories, budgets, a simulated month: in this process
	$(GO) -C evidence vet ./...
	$(GO) -C evidence test -short -parallel 8 -timeout 35m ./...

test-times: ## the tests that measure times, one after the other: other work on the machine disturbs them
	$(GO) test -p 1 -parallel 1 -run '_Time$$' $(TIMED)
	$(GO) -C evidence test -parallel 1 -run '_Time$$' .

# Named with a list of packages, go test would keep what a package prints to
# itself: the line for each backend.
test-integration: mariadb languages ## the suites on Vault's core, kube-apiserver, MariaDB and LocalStack, in containers where there is Docker
	$(GO) -C integration vet ./...
	$(GO) -C integration test -parallel 8 -timeout 35m

full: ## the same at the sizes that take an hour or two: 200 rounds of races, 10,000 records, 200 kills
	TOKENKEEP_FULL=1 $(GO) test -timeout 3h ./awssm ./gcpsm ./cli ./initializer ./sdk
	TOKENKEEP_FULL=1 $(GO) -C integration test -parallel 8 -timeout 3h

race: ## the tests of the module under the race detector, without those that measure times
	$(GO) test -short -race -timeout 30m ./...

lint: ## golangci-lint, with the reasons in .golangci.yml
	$(LINT) run ./...

fuzz: ## each fuzz target for FUZZ (30s)
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test $$pkg -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) || exit 1; \
		done; \
	done

# A setting is a scenario on a service with a kind of fault. Their output ends with the number of
# runs, and says whether these are all.
explore: ## the explorer to the last order of each setting, at most EXPLORE for a setting (hours); with SERVICE, of one service
	$(GO) test ./tokenstore -run '(TestEveryInterleaving|TestRepairBetweenAnyTwoCalls)/./^$(SERVICE)' -explore.runs=0 -explore.time=$(EXPLORE) -timeout 24h -v

# Names of a benchmark that end in /by=… are contenders in one comparison.
bench: ## compares with the peers in one run; with BASE, an earlier BENCH, says what has changed
	@{ $(GO) -C evidence test . -run '^TestPeers$$' -evidence.peers -bench '^BenchmarkFresh$$' -benchtime 200ms -count 6 && \
	   $(GO) -C evidence test . -run '^$$' -bench '^BenchmarkOperations$$' -benchtime $(BENCHTIME) -count 6 -timeout 1h; \
	} >$(BENCH).tmp || { cat $(BENCH).tmp; exit 1; }
	@mv $(BENCH).tmp $(BENCH)
	@for name in Stampede Fresh Operations; do $(BENCHSTAT) -filter .name:$$name -col /by $(BENCH) || exit 1; done
	@if [ -n "$(BASE)" ]; then $(BENCHSTAT) $(BASE) $(BENCH); fi

bench-stores: ## calls and times of every operation of every store, on the servers in this process
	$(GO) test -run '^$$' -bench . -benchtime 100x ./vaultstore ./awssm ./gcpsm ./tokenstore/... ./initializer

RESULTS ?= $(CURDIR)/dist/evidence-$(shell git rev-parse --short HEAD).json
evidence: ## run the measurements (hours), and rewrite docs/evidence.md and docs/evidence; a second run of a commit continues the first
	@mkdir -p $(dir $(RESULTS))
	$(GO) -C evidence run . -out ../docs -results $(RESULTS)

tidy-check: ## go.mod and go.sum say what the code needs (those of vaultdev and kubedev are pinned by hand)
	@for m in $(MODULES); do (cd $$m && $(GO) mod tidy -diff) || exit 1; done

vuln: ## known vulnerabilities in what is reached (needs the database)
	$(VULN) ./...

api: ## the exported names, compared with those of the last tag
	@internal/release/api.sh $(APIDIFF)

release-check: ## build a release twice and compare the bytes: six systems, without what this machine lacks
	@internal/release/check.sh $(RELEASER)

image-check: ## build the image of the agent, and run it as a user that is not root, on a read-only file system
	$(GO) -C integration test -count=1 -v -run '^TestImage$$' .

docs: ## the pages as a site, in dist/docs; a link to a heading that does not exist is an error
	$(GO) run github.com/gohugoio/hugo@$(HUGO) build --source docs/site --destination "$(CURDIR)/dist/docs" --cleanDestinationDir --noBuildLock --panicOnWarning
