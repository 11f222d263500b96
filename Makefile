# Everything runs in .venv, which the first target that needs it makes. PYTHON names another interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DATA ?= ../shared/data
# Processes of a test run: each computes with one thread and holds a network or two, so as many as there are cores.
WORKERS ?= 2
REFERENCES := torchvision timm huggingface_hub

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow chaos check format bench bench-train bench-accuracy bench-quantize gpu-check check-reference pictures clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

# What running netsmith needs.
.venv/train.stamp: pyproject.toml constraints.txt | .venv/pyvenv.cfg
	$(PIP) -e '.[train]'
	@touch $@

# What working on netsmith needs. The references of the parity tests are optional: those tests skip without them.
.venv/dev.stamp: .venv/train.stamp
	$(PIP) -e '.[train,dev]'
	@$(PIP) --no-deps $(REFERENCES) || echo 'no $(REFERENCES): tests that compare with them will be skipped'
	@touch $@

install: .venv/dev.stamp  ## make .venv with every version pinned

demo: .venv/train.stamp  ## one minute: digits and a budget in, a verified model and a prediction out
	rm -rf runs/demo
	$(BIN)/netsmith fit digits --budget latency=5ms,size=4MB --time 1m -o runs/demo
	$(BIN)/python -c "$$DIGIT" runs/seven.png
	$(BIN)/netsmith predict runs/demo/model runs/seven.png

# The first 7 of scikit-learn's digits, as a picture of 8 x 8 pixels.
define DIGIT
import sys, numpy, PIL.Image, sklearn.datasets
digits = sklearn.datasets.load_digits()
pixels = digits.images[digits.target.tolist().index(7)] * 255 / 16
PIL.Image.fromarray(pixels.round().astype(numpy.uint8)).save(sys.argv[1])
endef
export DIGIT

# Whole files go to whoever is free next, in their order: what a file makes once is made once.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: .venv/dev.stamp  ## the tests of every change, by two processes; WORKERS=N for another number, 0 for none
	$(BIN)/pytest $(PARALLEL)

test-slow: .venv/dev.stamp  ## all tests that need no GPU, the ones that take minutes too
	$(BIN)/pytest $(PARALLEL) -m 'not gpu'

# KILLS and SEED may be given: make chaos KILLS=100 SEED=1
chaos: .venv/dev.stamp  ## kill, stop, starve and rob real runs, and compare what they come to
	$(BIN)/python tests/chaos --kills $(or $(KILLS),50) --seed $(or $(SEED),0) --data $(DATA)

check: .venv/dev.stamp  ## format, lint, strict types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright

format: .venv/dev.stamp  ## rewrite the files as `check` wants them
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: bench-train bench-accuracy  ## measure on this machine, hours of it; rows go to benchmarks/results.csv
	$(BIN)/python benchmarks/finetune_flowers.py --data $(DATA) -o runs/finetune_flowers
	$(BIN)/python benchmarks/fit_imagenette.py --data $(DATA) -o runs/fit_imagenette

# TIMM_TRAIN=FILE adds timm's own train script, which is in none of its packages: make bench-train TIMM_TRAIN=runs/train.py
#   curl -o runs/train.py https://raw.githubusercontent.com/huggingface/pytorch-image-models/a6da4da1740cd57eaf864803f9dd65683cbcf6d7/train.py
#   SHA-256 f0bb70b9e1c8c576eb1f7beba9cb46953d01ec1308d68c59ec055a6266f76388; another content is refused
bench-train: .venv/dev.stamp  ## training speed against the loops people write, an hour and a quarter of a quiet machine
	$(BIN)/python benchmarks/train_speed.py --data $(DATA) --cold --profile $(if $(TIMM_TRAIN),--timm-train $(TIMM_TRAIN))

bench-accuracy: .venv/dev.stamp  ## time to an accuracy against the plain loop, four hours of a quiet machine
	$(BIN)/python benchmarks/time_to_accuracy.py --data $(DATA)

bench-quantize: .venv/dev.stamp  ## int8 against float on this machine, an hour and a half of it
	$(BIN)/python benchmarks/quantize.py --data $(DATA) -o runs/quantize

gpu-check: .venv/dev.stamp  ## the tests that need a CUDA device; without one all are skipped, with the reason
	$(BIN)/pytest -m gpu -rs

check-reference: .venv/dev.stamp  ## largest difference per network to torchvision, timm and a plain ResNet
	$(BIN)/python benchmarks/check_reference.py

# The page says which: every networks/NAME.svg that it shows.
pictures: .venv/dev.stamp  ## draw the pictures of docs/networks.md again
	@for name in $$(sed -n 's|.*(networks/\(.*\)\.svg).*|\1|p' docs/networks.md); do \
	  $(BIN)/netsmith profile $$name --no-latency --stages --svg docs/networks/$$name.svg --overwrite >/dev/null || exit 1; \
	done

clean:  ## remove what the tools left; .venv and runs stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
