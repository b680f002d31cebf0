# The commands of continuous integration. `.ci/run` runs them in new environments.
VENV ?= .venv
OPENMMLAB_VENV ?= .venv-openmmlab
# A wheel of mmcv saves a build of eleven minutes: make test-openmmlab MMCV=path/to/mmcv-2.1.0-...whl
MMCV ?= mmcv
# Tests of the code that uses the mm packages; all other code is the same on both stacks.
MM_TESTS = tests/engine tests/datasets tests/evaluation tests/models tests/tools tests/visualization \
	tests/report tests/test_tutorials.py tests/selection/test_zoo_choice.py tests/test_layers.py tests/test_package.py \
	tests/utils/test_requirements.py

.PHONY: install lint types test test-slow test-openmmlab demo ci

install:
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e ".[onedl,frameworks,test]"

lint:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types:
	$(VENV)/bin/mypy

test:
	$(VENV)/bin/pytest

test-slow:
	$(VENV)/bin/pytest -m slow

test-openmmlab:
	python3 -m venv $(OPENMMLAB_VENV)
	$(OPENMMLAB_VENV)/bin/pip install -c constraints.txt $(MMCV) -e ".[openmmlab,test]"
	$(OPENMMLAB_VENV)/bin/pytest $(wildcard $(MM_TESTS))
	$(OPENMMLAB_VENV)/bin/pip install -c constraints.txt mmdet
	$(OPENMMLAB_VENV)/bin/pytest tests/zoo/test_detection.py

demo:
	$(VENV)/bin/python tools/train.py configs/gps_polyp_demo.py --overwrite

ci:
	.ci/run
