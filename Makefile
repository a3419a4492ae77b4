# make quickstart   set everything up, then add a sample video of ten minutes and ask it five questions
# make test         run the tests
# make check        lint, format, types, architecture
#
# Needs Python 3.11 or later and make, nothing else. Every path is relative and quoted: the folder may have spaces.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Installed first and named on every later line, so that no other package can replace it with another build.
TORCH  ?= torch==2.13.0
# Options for pytest, for instance: make test PYTEST_ARGS="-k media"
PYTEST_ARGS ?=

VENV := .venv
PY   := $(VENV)/bin/python

.PHONY: help quickstart test check format wheel clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

quickstart: $(VENV)/.installed
	"$(PY)" -m videochat_tools.quickstart --folder quickstart

test: $(VENV)/.installed-dev
	"$(PY)" -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(PY)" -m mypy
	"$(PY)" -m pytest -q tests/test_architecture.py

format: $(VENV)/.installed-dev
	"$(PY)" -m ruff check --fix .
	"$(PY)" -m ruff format .

wheel: $(VENV)/.installed-dev
	"$(PY)" -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist quickstart *.egg-info "$(VENV)"

# The stamps make a second run start at once; a change of pyproject.toml installs again.
$(VENV)/.torch:
	@echo "Making the virtual environment $(VENV) and installing PyTorch and the package into it. This takes some minutes."
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; run: make PYTHON=python3.11")'
	"$(PYTHON)" -m venv "$(VENV)"
	"$(PY)" -m pip install -qq --upgrade pip "setuptools>=77"
	"$(PY)" -m pip install -qq "$(TORCH)"
	@touch "$@"

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	"$(PY)" -m pip install -qq --no-build-isolation --editable ".[faiss,speech]" "$(TORCH)"
	@touch "$@"

# openai-whisper comes without its dependency triton: 1 GB that it needs on a GPU only.
$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	"$(PY)" -m pip install -qq --no-build-isolation --editable ".[all,test,test-stores,dev]" "$(TORCH)" more-itertools numba tiktoken
	"$(PY)" -m pip install -qq --no-deps "openai-whisper>=20250625"
	@touch "$@"
