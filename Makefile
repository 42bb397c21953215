# make demo | test | lint | bench | bench-gpu: each makes the one .venv it needs, and prints the commands it runs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint bench bench-gpu

$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python >= 3.11 is needed, $(PYTHON) is older: run make PYTHON=python3.12" >&2; exit 2; }
	@echo "Installing mumkit and what it needs into .venv (a minute or two, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[datasets,probes,test]'
	@touch $@

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Without it torchrun prints five lines about having set it.
demo: export OMP_NUM_THREADS = 1

# The main job on rendered scenes. Every line is printed as it runs and can be copied; finished steps return at once.
demo: $(READY)
	$(BIN)/python -m shards build scenes --scenes 1500 --val-scenes 64 --out demo/shards
	$(BIN)/python -m shards verify demo/shards
	$(BIN)/python -m shards preview demo/shards --out demo/preview.png
	$(BIN)/torchrun --nproc-per-node 2 -m pretrain mum_tiny --data demo/shards --out demo/run
	$(BIN)/python -m mum export demo/run --out demo/encoder.safetensors --force
	$(BIN)/python -m probes run all --data demo/shards --out demo/probes --preset small \
	    --encoder demo/run random:mum_vittiny_patch8 pixels
	@echo "Done. Open $(CURDIR)/demo/probes/report.html"

bench: $(READY)
	@for script in benchmarks/*.py; do \
	    echo "$(BIN)/python $$script"; $(BIN)/python $$script || exit 1; done

# One call under ten minutes on a machine with a CUDA GPU; the peer it is measured against is fetched once.
REFERENCE ?= .reference
$(REFERENCE):
	git clone --quiet --branch train-dev https://github.com/davnords/mum $@

bench-gpu: $(READY) $(REFERENCE)
	$(BIN)/python benchmarks/step.py --device cuda --reference $(REFERENCE)
