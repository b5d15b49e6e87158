# Everything runs in a virtual environment of its own, built from pyproject.toml and the pins in constraints.txt.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
PORT ?= 7860

.PHONY: demo space docs test test-nightly test-browser lint format clean

# The whole path on drawn galaxies, and a page that shows it, whose path is printed last. Again, it goes on where it was interrupted.
demo: $(VENV)/ready
	@$(RUN) python -m hf_galaxy.commands.demo --out demo

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

# Also what only repeats, at more places, with other seeds and with many more drawn inputs, what `make test` has shown.
test-nightly: $(VENV)/ready
	$(PIP) -e '.[fuzz]' || echo "Without atheris, tests/fuzz/test_bytes.py is skipped."
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
