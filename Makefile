# Every target sets up what it needs, once: `make demo`, `make test`, `make lint`, ...
# PYTHON: what makes the environment. VENV: where. DETECTRON2: a pip requirement to use in place of
# the pinned Detectron2.
PYTHON ?= python3
VENV ?= .venv
DETECTRON2 ?=

BIN := $(VENV)/bin
ENVIRONMENT := $(VENV)/.environment
DETECTRON2_STAMP := $(VENV)/.detectron2
BUILT := $(VENV)/.built
CSRC := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
CORES := $(shell nproc 2>/dev/null || echo 1)

.PHONY: demo test lint format bench cuda sanitize kills torture ablation clean FORCE

# On the CPU, on every machine: one with a single GPU cannot have two processes.
demo: $(BUILT)
	CUDA_VISIBLE_DEVICES= $(BIN)/python train_net.py --config-file configs/digits_two_phase.yaml \
		--num-gpus $(if $(filter 1,$(CORES)),0,2)
	@$(BIN)/python -m ablation.report --control
	@echo "Checkpoints, pseudo-labels, TensorBoard events and summary.json: output/digits_two_phase"
	@echo "To look at: output/digits_two_phase/report.html"

test: $(BUILT)
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: $(ENVIRONMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CSRC)

format: $(ENVIRONMENT)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CSRC)

bench: $(BUILT)
	$(BIN)/python benchmarks/bench_ops.py --device cpu

cuda: $(ENVIRONMENT)
	$(BIN)/python scripts/compile_cuda.py

sanitize: $(ENVIRONMENT)
	sh scripts/sanitize_cpu.sh $(abspath $(BIN)/python)

kills: $(BUILT)
	$(BIN)/python tests/helpers/kill_anywhere.py --kills 100
	$(BIN)/python tests/helpers/kill_anywhere.py --kills 20 --processes 2

torture: $(BUILT)
	$(BIN)/python tests/helpers/torture.py

ablation: $(BUILT)
	$(BIN)/python -m ablation.run --processes $(CORES)
	$(BIN)/python -m ablation.report

clean:
	rm -rf build d2_ssod/_C*.so $(BUILT)

$(ENVIRONMENT): requirements.txt $(wildcard requirements/*.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

# Made anew when another Detectron2 is asked for than is installed.
ifneq ($(DETECTRON2),$(shell cat $(DETECTRON2_STAMP) 2>/dev/null))
$(DETECTRON2_STAMP): FORCE
endif
$(DETECTRON2_STAMP): $(ENVIRONMENT) scripts/install_detectron2.py
	$(BIN)/python scripts/install_detectron2.py --requirement "$(DETECTRON2)"
	printf '%s' "$(DETECTRON2)" > $@

$(BUILT): $(DETECTRON2_STAMP) setup.py pyproject.toml $(CSRC)
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@
