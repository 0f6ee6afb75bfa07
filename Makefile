# Two commands on a fresh machine (python3.11 or newer, pip, make): `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt
RUNS := demo/runs
CHROMIUM := chromium chromium-driver fonts-dejavu-core

.PHONY: demo test stress browser lint format clean

## demo: pictures of the model that comes along, then train one of coloured shapes on the CPU (a few minutes) and use it
demo: $(VENV)/core
	$(BIN)/ddm doctor --quiet
	$(BIN)/ddm sample cifar10 --count 64 --out demo/cifar10.png
	$(BIN)/ddm train shapes --runs $(RUNS)
	$(BIN)/ddm sample $(RUNS)/shapes --count 64 --out demo/shapes.png
	$(BIN)/ddm sample $(RUNS)/shapes --count 16 --out demo/denoising.webp --quiet
	@echo
	@echo "pictures    $(CURDIR)/demo/cifar10.png and shapes.png"
	@echo "denoising   $(CURDIR)/demo/denoising.webp"
	@echo "the run     $(CURDIR)/$(RUNS)/shapes  (loss.png, samples/, checkpoints/, metrics.jsonl)"

## test: everything the suite can check on this machine
test: $(VENV)/dev
	$(BIN)/python -m pytest --numprocesses 2

## stress: faults injected into real runs (half an hour; FULL=1: hours; SEED=7: other moments); writes RELIABILITY.md
stress: $(VENV)/dev
	$(BIN)/python -m stress $(if $(FULL),--full) --seed $(or $(SEED),0)

## browser: chromium and its driver, with which the tests look at the studio; without them these tests are skipped
browser:
	@for program in chromium chromedriver; do command -v $$program >/dev/null || missing=1; done; \
	[ -z "$$missing" ] && exit 0; \
	[ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	export DEBIAN_FRONTEND=noninteractive; \
	if command -v apt-get >/dev/null; then \
		$$sudo apt-get update -qq && $$sudo apt-get install -qq -y --no-install-recommends $(CHROMIUM) >/dev/null; \
	fi; \
	for program in chromium chromedriver; do command -v $$program >/dev/null || { \
		echo "$$program is not there, and apt-get could not install it: install $(CHROMIUM) by hand" >&2; exit 1; \
	}; done

## lint: style and types
lint: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: $(VENV)/dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer is needed; make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/core: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

# Two oracles of the tests ask for torchvision, which must not be here: no dependencies.
# torch-fidelity lies apart as well: torchmetrics uses it as soon as it is found, and fails, since it cannot be imported.
$(VENV)/dev: $(VENV)/core
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps denoising-diffusion-pytorch
	$(PIP) --no-deps --upgrade --target $(VENV)/oracles torch-fidelity==0.4.0
	@touch $@

clean:
	rm -rf $(VENV) demo
