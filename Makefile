# make help lists the targets. Only Go is needed beforehand; make test installs a Redis server where there is none.
GO       ?= go
BIN      := bin
GOLANGCI := v2.15.0
ACTIONLINT := v1.7.12
ARGS     ?=
COUNT    ?= 10
FUZZTIME ?= 30s

.DEFAULT_GOAL := help
.PHONY: help build test e2e npm race lint fmt bench fuzz soak demo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the static binary bin/signalbox
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/signalbox ./cmd/signalbox

test: ## vet, and all tests on a real Redis; CI runs this and e2e
	@build/redis.sh
	$(GO) vet -tags e2e,npm ./...
	$(GO) test -shuffle=on -timeout 10m ./...

e2e: ## jobs on a stock Gitea runner, built here, the first time from the Go proxy; SIGNALBOX_E2E_RUNNER=PATH takes an installed one, such as forgejo-runner
	$(GO) test -tags e2e -count=1 -timeout 10m ./e2e

npm: ## statuses from a GitLab client of npm's (needs Node and npm; CI does not run it)
	$(GO) test -tags e2e,npm -run Gitbeaker -count=1 -timeout 10m ./e2e

race: ## all tests under the race detector (needs a C compiler)
	@build/redis.sh
	CGO_ENABLED=1 $(GO) test -race -shuffle=on -timeout 20m ./...

lint: $(BIN)/golangci-lint-$(GOLANGCI) $(BIN)/actionlint-$(ACTIONLINT) ## static checks, the import rules of .golangci.yaml, the recipes' workflows
	$< run ./...
	$(BIN)/actionlint-$(ACTIONLINT) -shellcheck= -pyflakes= docs/recipes/workflows/*.yml

fmt: $(BIN)/golangci-lint-$(GOLANGCI) ## format the code
	$< fmt ./...

bench: ## all benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

fuzz: ## each fuzz test for FUZZTIME (30s)
	@set -e; for pkg in $$($(GO) list ./...); do \
		for name in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$name"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

soak: ## all tests COUNT (10) times, the long forms, under the race detector, in another order each time
	@build/redis.sh
	@set -e; for i in $$(seq $(COUNT)); do \
		echo "round $$i of $(COUNT)"; \
		SIGNALBOX_SOAK=1 CGO_ENABLED=1 $(GO) test -race -shuffle=on -count=1 -timeout 90m ./...; \
	done

demo: build ## watch the main job with nothing installed (ARGS=--exit ends when the account is told)
	@$(BIN)/signalbox demo $(ARGS)

$(BIN)/golangci-lint-$(GOLANGCI):
	@echo "installing golangci-lint $(GOLANGCI) into $(BIN)/"
	@GOBIN=$(CURDIR)/$(BIN)/.install $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	@mv $(BIN)/.install/golangci-lint $@ && rmdir $(BIN)/.install

$(BIN)/actionlint-$(ACTIONLINT):
	@echo "installing actionlint $(ACTIONLINT) into $(BIN)/"
	@GOBIN=$(CURDIR)/$(BIN)/.install $(GO) install github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT)
	@mv $(BIN)/.install/actionlint $@ && rmdir $(BIN)/.install
