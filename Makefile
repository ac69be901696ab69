# make demo: the main job on a real head.  make test: every check.  Both install what they need first.
PYTHON ?= python3
VENV   ?= .venv
OUT    ?= runs/demo
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
KERNELS := $(wildcard mcaprobe/kernels/*.cpp mcaprobe/kernels/*.h nanops/kernels/*.cpp nanops/kernels/*.h native/*.h)

.PHONY: demo test lint install clean

demo: $(READY)
	$(BIN)/mcaprobe run demo mni152 --out $(OUT) --samples 10 --seed 0

test: $(READY)
	$(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(READY)

$(READY): pyproject.toml constraints.txt setup.py $(KERNELS)
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Expected Python 3.11 or newer, got %d.%d: set PYTHON=..." % v[:2])'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info runs mcaprobe/kernels/*.so nanops/kernels/*.so
