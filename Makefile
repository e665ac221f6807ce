# Each command sets up what it needs (a virtual environment, pinned dependencies) and needs nothing before it.

PYTHON = python3
PROMPT = a red ball bounces on the grass while the camera orbits
SEED =
SECONDS =
ARGS =

# The prompt goes through the environment, and unexpanded, so that quotes and dollars in it survive.
override PROMPT := $(value PROMPT)
export PROMPT

# -qq hides pip's notes but not its errors.
PIP = .venv/bin/python -m pip --disable-pip-version-check -qq install -c requirements.lock
LOCK = pyproject.toml requirements.lock

.DEFAULT_GOAL := help
.PHONY: help video test clients lint world train bench clean

help: ## list these commands
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 14

video: .venv/.core ## generate out.mp4 and its contact sheet out.png: make video PROMPT="..." [SEED=1] [SECONDS=2]
	@.venv/bin/yozora generate -o out.mp4 --sheet out.png \
	    $(if $(SEED),--seed '$(SEED)') $(if $(SECONDS),--seconds '$(SECONDS)') -- "$$PROMPT"

test: .venv/.dev .venv/.clients ## run the whole test suite, or some of it: make test ARGS="tests/world -n 2"
	@.venv/bin/python -m pytest -q $(ARGS)

clients: .venv/.clients ## install the official openai clients that the service is tested with, into .venv/clients

lint: .venv/.dev ## check format, style, types and the order of imports
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/pyright
	@.venv/bin/lint-imports

world: .venv/.dev ## render eight clips of the simulated world, with captions, into data/world
	@.venv/bin/yozora world sample -n 8 -o data/world

train: .venv/.dev ## train the shipped model from nothing: several hours on two cores
	@scripts/train_mini.sh

bench: .venv/.dev ## measure speed, reconstruction and prompt following; tables and bench/results/*.json
	@for bench in world speed autoencoder flow_loss prompt_following; do .venv/bin/python bench/$$bench.py || exit; done

clean: ## remove what these commands wrote, except training runs and the virtual environment
	@rm -rf out.mp4 out.png data build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo 'Yozora needs Python 3.11 or later: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.core: $(LOCK) | .venv/bin/python
	@echo 'installing the pinned dependencies into .venv (once, about a minute)' >&2
	@$(PIP) -e .
	@touch $@

# The official clients that the service is tested with, each in a folder of its own.
.venv/.clients: tests/service/openai-2.54.txt tests/service/openai-3.52.txt | .venv/.dev
	@rm -rf .venv/clients
	@for version in 2.54 3.52; do .venv/bin/python -m pip --disable-pip-version-check -qq install \
	    --target .venv/clients/openai-$$version -r tests/service/openai-$$version.txt || exit; done
	@touch $@

.venv/.dev: $(LOCK) | .venv/bin/python
	@echo 'installing the pinned dependencies into .venv (once, a minute or two)' >&2
	@$(PIP) -e '.[world,train,understand,serve,otel,dev]'
	@touch .venv/.core $@
