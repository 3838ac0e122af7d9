# make demo    a Keras file becomes a PyTorch module, and the module runs on its own
# make test    everything that has to hold: style, types, tests in all frameworks, doctests, docs
# make docs    build/docs/index.html
# make bench   how long things take
# make clean   removes what the above have built, the environment too
#
# Everything lives in .venv, which is made here. PYTHON=python3.12 picks another interpreter. On a machine without
# a GPU, UV_TORCH_BACKEND=cpu saves the download of torch's CUDA libraries.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraints constraints.txt

export OMP_NUM_THREADS := 2
export TF_CPP_MIN_LOG_LEVEL := 3
export KERAS_BACKEND := tensorflow
export UV_HTTP_TIMEOUT ?= 300

.PHONY: demo test style types docs bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	rm -rf build/demo
	$(BIN)/batchmap port examples/sentiment.h5 --to torch --out build/demo
	$(BIN)/python examples/ask.py build/demo "the plot was not bad" "i loved the music but the ending was awful"

test: style types $(VENV)/.test
	$(BIN)/pytest
	$(BIN)/pytest --doctest-modules src
	$(MAKE) docs

style: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.test
	$(BIN)/mypy

docs: $(VENV)/.test
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --doctree-dir build/doctrees docs build/docs

bench: $(VENV)/.test
	$(BIN)/python benchmarks/bench.py

clean:
	rm -rf build dist $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache

# The environment: a stamp for each state of it, so that a second run reuses it and either may come first.

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.demo: $(BIN)/uv pyproject.toml constraints.txt
	$(INSTALL) --editable ".[torch]"
	touch $@

$(VENV)/.test: $(BIN)/uv pyproject.toml constraints.txt
	$(INSTALL) --editable ".[torch,test,docs]" keras tensorflow-cpu jax flax onnx onnxruntime
	$(INSTALL) --no-deps tf_keras  # it asks for tensorflow, which tensorflow-cpu stands in for
	touch $@ $(VENV)/.demo
