# Everything runs in a virtual environment of its own, built from pyproject.toml and the pins in constraints.txt.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
PORT ?= 7860
LAUNCH := $(RUN) accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: demo space docs test test-nightly test-browser lint format clean

# The whole path on a mock survey: publish, check, pretrain on votes, finetune on classes, evaluate what was saved.
demo: $(VENV)/ready
	rm -rf demo
	$(RUN) python scripts/publish_dataset.py simulate --galaxies 3000 --out demo/survey
	$(RUN) python scripts/publish_dataset.py simulate --galaxies 400 --seed 1 --out demo/new_survey
	$(RUN) python scripts/check_dataset.py demo/survey
	$(LAUNCH) scripts/pretrain.py --dataset demo/survey --backbone test_resnet --image-size 64 --batch-size 32 \
		--epochs 12 --learning-rate 3e-3 --min-votes 10 --out demo/pretrained
	$(LAUNCH) scripts/finetune.py --start demo/pretrained --dataset demo/new_survey --task classes --label mock_class \
		--epochs 20 --learning-rate 1e-3 --out demo/finetuned
	@echo; echo "Made in demo/, all from mock galaxies:"
	@echo "  survey, new_survey      datasets for datasets.load_dataset"
	@echo "  pretrained, finetuned   run folders for from_pretrained, each with a card (README.md) and run.json"
	@echo; echo "demo/pretrained on the test split of demo/survey:"
	@$(LAUNCH) scripts/evaluate.py --run demo/pretrained
	@echo; echo "demo/finetuned on the test split of demo/new_survey:"
	@$(LAUNCH) scripts/evaluate.py --run demo/finetuned

# The demo in a browser, on this machine only and without the network; PORT=8000 takes another port.
space: $(VENV)/ready
	@echo "The Space starts on http://127.0.0.1:$(PORT); Ctrl-C ends it."
	$(RUN) GRADIO_ANALYTICS_ENABLED=False GRADIO_SERVER_NAME=127.0.0.1 GRADIO_SERVER_PORT=$(PORT) python spaces_app/app.py

# The documentation as a site, in site/; a broken link is an error.
docs: $(VENV)/ready
	$(RUN) NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet
	@echo "site/index.html: look at it with $(VENV)/bin/python -m http.server --directory site"

# As many tests at once as there are cores, so one thread each; those of a file share what they prepare (tests/conftest.py).
test: lint
	$(RUN) OMP_NUM_THREADS=1 python -m pytest -n auto --no-loadscope-reorder

# Also what only repeats, at more places and with other seeds, what `make test` has shown.
test-nightly: $(VENV)/ready
	$(RUN) OMP_NUM_THREADS=1 python -m pytest -n auto --no-loadscope-reorder -m "nightly or not nightly"

# Those of the Space that click in a Chromium, which `make test` runs, too, where there is one; without it they say so.
test-browser: $(VENV)/ready
	$(RUN) python -m pytest -rs tests/space/test_browser.py

lint: $(VENV)/ready
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

format: $(VENV)/ready
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

clean:
	rm -rf $(VENV) demo site

# torch comes first: once it is there, nothing else asks for another build of it. The last step mends torchvision where
# its wheel, built for CUDA, stands beside a CPU build of torch and cannot be imported.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[test]'
	@$(VENV)/bin/python -c 'import torchvision' 2>/dev/null || echo "import sys, types;" \
		"sys.modules.setdefault('torchvision._meta_registrations', types.ModuleType('torchvision._meta_registrations'))" \
		> $$($(VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/torchvision_beside_cpu_torch.pth
	touch $@
