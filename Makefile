# rayal, from a bare checkout: `make demo` needs Python 3.11 or later, make and pip, and nothing else.
# PYTHON=python3.12 picks an interpreter; otherwise the first one on the path that is new enough.

PYTHON ?= $(shell for one in python3 python3.13 python3.12 python3.11; do \
	$$one -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$one && break; done)
BIN := .venv/bin
STAMP := .venv/installed
PEERS := .peers
STORES := .stores
STUDIO := .label-studio
STUDIO_VERSION := 1.23.2

# One thread a process: several processes share the cores, and math libraries that all take every core are ruinous.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help install demo test test-slow stores-test label-studio-test check format bench bench-peers clean

help:
	@echo "make demo       active learning over 6.6 million words, start to end (minutes)"
	@echo "make test       the tests            make test-slow  the long ones"
	@echo "make stores-test  pools, runs and features in servers that stand in for Azure's and Google's stores (needs npm)"
	@echo "make label-studio-test  orders and answers through a real Label Studio on this machine (minutes)"
	@echo "make check      lint, types, layers  make format     formats the code"
	@echo "make bench      the benchmarks, in their quick form"
	@echo "make bench-peers  scikit-activeml and small-text in .peers, and what they take (minutes)"
	@echo "make clean      removes what tools left behind; pools, runs and .venv stay"

install: $(STAMP)

# pip and not another installer: it finds what PIP_FIND_LINKS or pip.conf name, a CPU build of torch for instance.
# Ray's first start imports in eight processes at once, and gives up after 15 s; without bytecode that is not
# enough on a small machine. A file that is no Python of this version (a template) is no reason to stop.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later found; install one, or say make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,recipes]"
	@$(BIN)/python -m compileall -qq -j 0 "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" || true
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -m "not slow and not gpu" -n 2 --dist loadgroup

test-slow: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -m "slow and not gpu"

# Servers and clients lie in a folder of their own: rayal needs neither, and CI does not install them.
stores-test: $(STAMP) $(STORES)/installed
	$(ONE_THREAD) RAYAL_STORES=$(CURDIR)/$(STORES) PYTHONPATH=$(CURDIR)/$(STORES)/clients $(BIN)/python -m pytest -q tests/e2e/test_other_stores.py

$(STORES)/installed: constraints.txt tests/stores.txt
	test -x $(STORES)/bin/python || $(BIN)/python -m venv $(STORES)
	$(STORES)/bin/python -m pip install --quiet --disable-pip-version-check gcp-storage-emulator==2026.7.19
	npm install --silent --no-audit --no-fund --prefix $(STORES) azurite@3.37.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade -c constraints.txt -r tests/stores.txt --target $(STORES)/clients
	@touch $@

# The server has an environment of its own: it pins an older numpy. Started on loopback, ended by its pid.
label-studio-test: $(STAMP) $(STUDIO)/installed-$(STUDIO_VERSION)
	$(ONE_THREAD) RAYAL_LABEL_STUDIO=$(CURDIR)/$(STUDIO) RAYAL_LABEL_STUDIO_ROWS=5000 RAYAL_LABEL_STUDIO_KILLS=20 RAYAL_LABEL_STUDIO_SINGLES=500 \
		$(BIN)/python -m pytest -q -rP tests/contract/test_label_studio.py tests/e2e/test_label_studio_kills.py

$(STUDIO)/installed-$(STUDIO_VERSION):
	test -x $(STUDIO)/venv/bin/python || $(BIN)/python -m venv $(STUDIO)/venv
	$(STUDIO)/venv/bin/python -m pip install --quiet --disable-pip-version-check label-studio==$(STUDIO_VERSION)
	rm -rf $(STUDIO)/template
	@touch $@

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	@for one in benchmarks/[a-z]*.py; do \
		echo "== $$one"; $(BIN)/python "$$one" --quick || exit 1; done

# Peers have an environment of their own: what they pin must not decide what rayal runs with.
bench-peers: $(PEERS)/installed
	$(ONE_THREAD) $(PEERS)/bin/python benchmarks/peers/run.py

$(PEERS)/installed: benchmarks/peers/requirements.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later found; install one, or say make PYTHON=/path/to/python"; exit 1; }
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $< || \
		{ echo "the peers cannot be installed here (see above); benchmarks/select.py goes on without them"; exit 1; }
	@touch $@

clean:
	rm -rf build dist out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find rayal tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
