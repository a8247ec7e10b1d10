# make help lists what there is. CI calls these targets and nothing else.

GO      ?= go
FUZZ    ?= 30s
LINT     = $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VULN     = $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0
MODULES  = . integration evidence

# Memory for time: the tests allocate much and keep little.
export GOGC ?= 400

.DEFAULT_GOAL := help
.PHONY: help demo test mariadb test-fast test-evidence test-integration full race lint fuzz bench evidence tidy-check vuln

help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## the main job, on embedded defaults: needs Go and nothing else
	@$(GO) run ./examples/demo

# Much of what the targets do is to wait, so two of them run beside each other.
test: ## everything that this machine can run, real servers included (as root, it installs MariaDB)
	@$(MAKE) --no-print-directory -j 2 test-fast test-evidence test-integration

mariadb:
	@internal/mariadb/install.sh

test-fast: mariadb ## the tests of the module: no Docker, and no server but MariaDB
	$(GO) vet ./...
	$(GO) test -timeout 25m ./...

test-evidence: ## every fault at every call, histories, budgets, a simulated month: in this process
	$(GO) -C evidence vet ./...
	$(GO) -C evidence test -parallel 8 -timeout 25m ./...

# Named with a list of packages, go test would keep what a package prints to
# itself: the line for each backend.
test-integration: mariadb ## the suites on Vault's core, MariaDB and LocalStack, in containers where there is Docker
	$(GO) -C integration vet ./...
	$(GO) -C integration test -parallel 8 -timeout 25m

full: ## the same at the sizes that take an hour or two: 200 rounds of races, 10,000 records, 200 kills
	TOKENKEEP_FULL=1 $(GO) test -timeout 3h ./awssm ./gcpsm ./cmd/tokenkeep ./initializer
	TOKENKEEP_FULL=1 $(GO) -C integration test -parallel 8 -timeout 3h

race: ## the tests of the module under the race detector
	$(GO) test -race -timeout 30m ./...

lint: ## golangci-lint, with the reasons in .golangci.yml
	$(LINT) run ./...

fuzz: ## each fuzz target for FUZZ (30s)
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test $$pkg -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) || exit 1; \
		done; \
	done

bench: ## calls and times of every operation, on the servers in this process
	$(GO) test -run '^$$' -bench . -benchtime 100x ./vaultstore ./awssm ./gcpsm ./tokenstore/... ./initializer

evidence: ## run what docs/evidence.md reports, and write it anew
	$(GO) -C evidence run . -out ../docs

tidy-check: ## go.mod and go.sum say what the code needs (that of vaultdev is pinned by hand)
	@for m in $(MODULES); do (cd $$m && $(GO) mod tidy -diff) || exit 1; done

vuln: ## known vulnerabilities in what is reached (needs the database)
	$(VULN) ./...
