# Two commands do everything, set-up included: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= 2.13.0
BIN = $(VENV)/bin
QUICK ?=
SOURCES := $(shell find csrc -path csrc/testing -prune -o '(' -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' ')' -print) setup.py pyproject.toml
RAW := $(wildcard csrc/testing/*) bench/raw/_build.py
TYPED = fused_ml bench examples
# The tables of operators that have CUDA kernels: they run over the CUDA sources too, on the CPU and on a GPU.
TABLES = $(patsubst %,tests/%.py,$(addprefix operators/test_,bce_with_logits cross_entropy cross_entropy_extras \
	cross_entropy_in_place gradcheck gradient_scale hypothesis logsigmoid nll_loss numerics opcheck rows softmax \
	torch_samples) $(addprefix kernels/test_,dimension_orders pointwise_runs rowwise_tiles scale) \
	$(addprefix optimizers/test_,amp changes class errors gather on_device scaling state steps))
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Tests and wheels: with CUDA kernels where there is a toolkit, whatever torch has.
WITH_CUDA = FUSED_ML_CUDA=$(or $(FUSED_ML_CUDA),$(if $(CUDA_HOME)$(shell command -v nvcc),1,auto))
SHELL = /bin/bash
.SHELLFLAGS = -o pipefail -c
# Of a compiler's call the file and how many of how many; the rest as it comes.
PROGRESS = sed -u -E 's|^(\[[0-9]+/[0-9]+\]) .*[ /](csrc/[^ ]*\.c[a-z]+) .*|\1 \2|'
INSTALL = $(BIN)/python -W ignore setup.py -q build_ext --inplace 2>&1 | $(PROGRESS) && $(BIN)/pip install -q --no-build-isolation --no-deps -e .

.PHONY: help setup test test-integration test-cuda test-exhaustive test-sanitize demo bench bench-peers bench-report bench-cuda \
	cuda-report wheel lint format clean

help:
	@echo "make test           set up .venv, build, run the tests"
	@echo "make test-integration  installs Lightning, Accelerate, transformers and skorch; trains through them"
	@echo "make test-cuda      the tables on a GPU, with this machine's own Python and torch; no network"
	@echo "make test-exhaustive  every float32 through every formula at every instruction set"
	@echo "make test-sanitize  the kernels under ASan and UBSan (QUICK=1: small tensors alone)"
	@echo "make demo           train on real data with torch and with fused_ml, compare (QUICK=1: under a minute)"
	@echo "make bench          times, bytes and ratios against torch and the peers installed (QUICK=1: small)"
	@echo "make bench-peers    install what the benchmark compares with besides torch: DeepSpeed, torchao, JAX"
	@echo "make bench-report   docs/performance.json into docs/performance.md and the README's table"
	@echo "make bench-cuda     losses on a GPU against torch and the peers installed there; no network"
	@echo "make cuda-report    registers, spills, widths and bytes of the CUDA kernels into docs/cuda-kernels.md (no GPU)"
	@echo "make wheel          build the wheel into dist/, audit it, try it in a clean environment"
	@echo "make lint           formatting, types, and every formula through nvcc where there is one"

# Each stamp is newer than what it was made from: the second run is quick.
$(VENV)/python-ready:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade "setuptools>=70.1" wheel
	touch $@

$(VENV)/packages-ready: $(VENV)/python-ready requirements-dev.txt
	$(BIN)/pip install -q torch==$(TORCH)
	$(BIN)/pip install -q -r requirements-dev.txt -r examples/demo/requirements.txt -r bench/requirements.txt
	touch $@

$(VENV)/library-ready: $(VENV)/packages-ready $(SOURCES)
	export $(WITH_CUDA); $(INSTALL)
	touch $(VENV)/demo-packages-ready $(VENV)/cpu-library-ready $@

# What the demo needs: a few packages, and the CPU kernels unless asked (FUSED_ML_CUDA=1).
$(VENV)/demo-packages-ready: $(VENV)/python-ready examples/demo/requirements.txt
	$(BIN)/pip install -q torch==$(TORCH) ninja numpy -r examples/demo/requirements.txt
	touch $@

$(VENV)/cpu-library-ready: $(VENV)/demo-packages-ready $(SOURCES)
	export FUSED_ML_CUDA=$(or $(FUSED_ML_CUDA),$(if $(wildcard fused_ml/_cuda.so),1,0)); $(INSTALL)
	touch $@

# The formulas and kernels on NumPy arrays, for the tests; no part of the wheel.
$(VENV)/raw-ready: $(VENV)/library-ready $(RAW)
	$(BIN)/python -c "import bench.raw"
	touch $@

setup: $(VENV)/raw-ready

test: setup
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --device=cuda-emulated $(TABLES)

# torch is named too, so that the one that is there stays.
$(VENV)/integration-ready: $(VENV)/packages-ready tests/integration/requirements.txt
	$(BIN)/pip install -q torch==$(TORCH) -r tests/integration/requirements.txt
	touch $@

test-integration: setup $(VENV)/integration-ready
	$(BIN)/python -m pytest tests/integration

# On a machine with a GPU, with its own Python, torch, toolkit and pytest: no environment is made, nothing fetched.
test-cuda:
	FUSED_ML_CUDA=1 $(PYTHON) setup.py -q build_ext --inplace
	$(PYTHON) -m pytest --device=cuda $(TABLES) tests/cuda/test_device{,_optimizers}.py

test-exhaustive: setup
	$(BIN)/python -m pytest tests/kernels/test_formulas.py --exhaustive

test-sanitize: setup
	QUICK=$(QUICK) PYTHON=$(BIN)/python tests/sanitize.sh

bench-cuda:
	FUSED_ML_CUDA=1 $(PYTHON) setup.py -q build_ext --inplace
	$(PYTHON) -m bench.cuda

cuda-report: setup
	$(BIN)/python -m bench.cuda_report --output docs/cuda-kernels.md

demo: $(VENV)/cpu-library-ready
	$(BIN)/python -m examples.demo $(if $(QUICK),--quick)

bench: setup
	$(BIN)/python -m bench $(if $(QUICK),--quick)

# torch is named too, so that the one that is there stays.
bench-peers: $(VENV)/packages-ready
	$(BIN)/pip install -q --no-build-isolation torch==$(TORCH) -r bench/peers.txt

bench-report: setup
	$(BIN)/python -m bench.report_docs

wheel: $(VENV)/packages-ready
	VENV=$(VENV) .ci/wheel $(TORCH)

lint: $(VENV)/packages-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror
	tests/formulas_on_device.sh

format: $(VENV)/packages-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format -i

clean:
	rm -rf $(VENV) build dist *.egg-info fused_ml/*.so fused_ml/_cuda.json
