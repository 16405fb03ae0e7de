# Every target is one line over uv and labkit; what has to be in place first is in scripts/setup.sh.
SET ?= default
ARGS ?=
SETUP := sh scripts/setup.sh
BIN := .venv/bin

.PHONY: help install run test stacks lab docs lock build system
help:    ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

install: ## install the course into .venv, and nothing else (SET=all: with every heavy part)
	@$(SETUP) run $(SET)

run:     ## install, run every lab, write build/report/index.html (SET=all: with every heavy part)
	@$(SETUP) run $(SET)
	@$(BIN)/labkit run --report build/report/index.html $(ARGS)

lab:     ## open JupyterLab at the course map, on your own copies in work/
	@$(SETUP) run default
	@$(BIN)/labkit lab $(ARGS)

test:    ## install what the tests need and run them, all but the stacks' (ARGS="tests/core -k machine")
	@$(SETUP) test
	@$(BIN)/python -m pytest -n auto --no-loadscope-reorder --ignore=tests/stacks $(ARGS)

stacks:  ## build and run the containers of labs/stacks and test them (ARGS="-k llama")
	@$(SETUP) stacks
	@$(BIN)/python -m pytest tests/stacks $(ARGS)

build:   ## make the learner notebooks in labs/ from labs/sources/
	@$(SETUP) run default
	@$(BIN)/labkit build $(ARGS)

docs:    ## make the site in site/, any warning an error
	@$(SETUP) docs
	@$(BIN)/python scripts/reference.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

lock:    ## bring uv.lock, and Binder's pins that follow it, up to date
	@$(SETUP) lock

system:  ## install the system packages that the tests need (Debian, Ubuntu)
	@$(SETUP) system
