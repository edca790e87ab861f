# `make demo` and `make test` do everything on a fresh machine with Python 3.10 or newer.
# Each makes its own virtual environment; FORCE=1 makes it again.

PYTHON ?= python3
PIP_OPTIONS ?= --quiet --disable-pip-version-check
MANIFESTS := pyproject.toml device_agent/pyproject.toml

.PHONY: demo test check format test-agent-py39 nncf onnx2tf torch-pruning docs pictures clean
.DELETE_ON_ERROR:

demo: .venv-demo/ready
	.venv-demo/bin/farrier demo

test: .venv/ready
	.venv/bin/python -m pytest

check: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

format: .venv/ready
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

# The agent promises Python 3.9; this runs its own tests there.
test-agent-py39: .venv-py39/ready
	.venv-py39/bin/python -m pytest tests/contracts tests/agent

.venv-demo/ready: $(MANIFESTS)
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/pip install $(PIP_OPTIONS) --upgrade 'pip>=25.1'
	.venv-demo/bin/pip install $(PIP_OPTIONS) -e './device_agent[onnx]' -e '.[demo]'
	touch $@

.venv/ready: $(MANIFESTS)
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install $(PIP_OPTIONS) --upgrade 'pip>=25.1'
	.venv/bin/pip install $(PIP_OPTIONS) -e './device_agent[onnx,litert]' -e '.[demo]' --group dev
	touch $@

.venv-py39/ready: $(MANIFESTS)
	python3.9 -m venv --clear .venv-py39
	.venv-py39/bin/pip install $(PIP_OPTIONS) --upgrade 'pip>=25.1'
	.venv-py39/bin/pip install $(PIP_OPTIONS) --prefer-binary -e './device_agent[onnx,litert]' --group device_agent/pyproject.toml:test
	touch $@

# A peer that benchmarks.quantization.int8_accuracy compares with; its requirements would hold ours back.
nncf: .venv-nncf/ready

.venv-nncf/ready:
	$(PYTHON) -m venv --clear .venv-nncf
	.venv-nncf/bin/pip install $(PIP_OPTIONS) --upgrade 'pip>=25.1'
	.venv-nncf/bin/pip install $(PIP_OPTIONS) nncf onnx onnxruntime
	touch $@

# The peer of benchmarks.pruning.resnet56.
torch-pruning: .venv-torch-pruning/ready

.venv-torch-pruning/ready:
	$(PYTHON) -m venv --clear .venv-torch-pruning
	.venv-torch-pruning/bin/pip install $(PIP_OPTIONS) --upgrade 'pip>=25.1'
	.venv-torch-pruning/bin/pip install $(PIP_OPTIONS) torch-pruning onnx onnxscript
	touch $@

onnx2tf: .venv-onnx2tf/ready

.venv-onnx2tf/ready:
	$(PYTHON) -m venv --clear .venv-onnx2tf
	.venv-onnx2tf/bin/pip install $(PIP_OPTIONS) --upgrade 'pip>=25.1'
	.venv-onnx2tf/bin/pip install $(PIP_OPTIONS) onnx2tf ai-edge-litert ai-edge-quantizer
	touch $@

# Pages made from the code itself; a test says when they are out of date.
docs: .venv/ready
	.venv/bin/python -m farrier.catalogue > docs/targets.md
	.venv/bin/python -m benchmarks.tflite.backend_suite --page docs/onnx-to-tflite-ops.md

# Compilers and engines with environments of their own (`make tools/openvino`); farrier_converters/tools lists them.
tools/%: .venv/ready
	.venv/bin/python -m farrier_converters.tools $*

# The pictures of README.md, made by the test that looks at them.
pictures: .venv/ready
	FARRIER_PICTURES=docs/images .venv/bin/python -m pytest tests/e2e/test_pictures.py

clean:
	rm -rf .venv .venv-demo .venv-py39 .venv-nncf .venv-onnx2tf build dist
