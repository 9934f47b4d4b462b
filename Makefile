# Needs Python 3.10 to 3.13, pip and PyPI; everything else is fetched into folders that git
# ignores. `make` alone lists what there is. PYTHON names another Python than python3.

PYTHON ?= python3
COMFYUI_PORT ?= 8188
# Tests at once, each with a process and about 2 GB of its own.
JOBS ?= 2
export UV_HTTP_TIMEOUT ?= 300
# As pip does: trust what the machine trusts, which matters behind a company's proxy.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/ssl/cert.pem),1,0)
# Compiled once and kept: without that, each process of the tests compiles torch and transformers.
export PYTHONDONTWRITEBYTECODE :=
# One thread: models in the tests are tiny, and two pools on few cores fight each other.
export OMP_NUM_THREADS ?= 1

UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .venv-uv/bin/uv)
PY := .venv/bin/python
NEWEST := .venv/.ready
OLDEST := .venv-oldest/.ready

.PHONY: help python setup browser demo bench bench-docs test fuzz servers lint types format comfy clean

help:
	@echo 'make setup    environments: .venv (newest transformers), .venv-oldest (4.57)'
	@echo 'make demo     describe, read and ground shipped pictures with the bundled model'
	@echo 'make test     everything that CI runs'
	@echo 'make fuzz     replies that nobody would write, by the hour'
	@echo 'make servers  real servers, as far as they are named (see CONTRIBUTING), and a bad network'
	@echo 'make bench    speed and memory against the plain way, side by side, with plots'
	@echo 'make bench-docs  docs/performance.md with the results of make bench'
	@echo 'make lint     style and types'
	@echo 'make format   rewrite the code in the style'
	@echo 'make comfy    COMFYUI=<checkout>: a real ComfyUI with the pack in it'
	@echo 'make clean    remove the environments and caches'

setup: $(NEWEST) $(OLDEST)

# Before a Python is used: is it there, and one that this runs on? Environments that are there
# already need none, unless one is named.
python:
	@test "$(origin PYTHON)" = file && { test -x $(PY) || test -x .venv-comfyui/bin/python; } || { \
		command -v "$(PYTHON)" >/dev/null || \
			{ echo 'There is no $(PYTHON) here: name another, as in PYTHON=python3.11'; exit 2; }; \
		$(PYTHON) .ci/python.py "$(PYTHON)"; }

# A private copy: --target works as root, in a virtual environment and where the system's
# Python is managed by its distribution.
.venv-uv/bin/uv: | python
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .venv-uv uv

$(NEWEST): pyproject.toml requirements.txt | python $(filter .venv-uv/%,$(UV))
	test -x $(PY) || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" .venv
	$(UV) pip install --python $(PY) -r requirements.txt --group dev
	mkdir -p .venv/pack && ln -sfn ../.. .venv/pack/qwen_vl_suite
	touch $@

$(OLDEST): pyproject.toml requirements.txt | python $(filter .venv-uv/%,$(UV))
	test -x .venv-oldest/bin/python || \
		$(UV) venv --quiet --python "$$(command -v $(PYTHON))" .venv-oldest
	$(UV) pip install --python .venv-oldest/bin/python -r requirements.txt --group dev-oldest
	touch $@

# tests/web drives a Chromium. Where something for that is missing and we may install it, Debian's
# is taken; elsewhere these tests are skipped and say so, or fail where QVL_REQUIRE_BROWSER is set.
browser: $(NEWEST)
	@{ command -v chromium || command -v chromium-browser || command -v google-chrome; } && \
		$(PY) -m playwright --version || { \
		test "$$(id -u)" = 0 && command -v apt-get && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
			chromium libatomic1 fonts-dejavu-core; } || echo 'No browser for tests/web.'

demo: $(NEWEST)
	$(PY) demo.py

.venv/.bench: $(NEWEST)
	$(UV) pip install --python $(PY) --group bench
	touch $@

# Threads as torch would take them: this measures, and wants the machine for itself.
bench: .venv/.bench
	env -u OMP_NUM_THREADS $(PY) -m benchmarks --save output/bench/results.jsonl
	$(PY) -m benchmarks.report output/bench/results.jsonl
	env -u OMP_NUM_THREADS $(PY) -m benchmarks.loading --json | tee output/bench/loading.json

# The page in docs/ with what was measured last.
bench-docs: .venv/.bench
	$(PY) -m benchmarks.report output/bench/results.jsonl --docs

lint: $(NEWEST)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: $(NEWEST)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# What uses neither transformers nor a library whose version that dictates (tokenizers,
# huggingface_hub) is the same in both environments, and is tested in the newest only.
WITHOUT_LIBRARY := replies tasks folders cli/test_captioning.py test_coordinates.py test_import_free.py \
	test_layering.py 	servers/test_answer_form.py servers/test_calibration.py servers/test_content.py \
	servers/test_detection.py servers/test_kinds.py

test: setup browser lint
	.venv-oldest/bin/python -m pytest -q -n $(JOBS) --dist worksteal tests/engine \
		$(WITHOUT_LIBRARY:%=--ignore=tests/engine/%)
	$(PY) -m pytest -q -n $(JOBS) --dist worksteal

# Minutes to hours: 100,000 texts a family, and times from a kilobyte to a megabyte.
fuzz: $(NEWEST)
	$(PY) tests/engine/fuzz_replies.py --texts 100000 --growth

# Minutes: servers that are installed elsewhere, one after the other, and 2,000 requests through
# connections that break in every way.
servers: $(NEWEST)
	QVL_FAULT_REQUESTS=2000 $(PY) -m pytest tests/servers tests/engine/servers/test_network_faults.py

# An own database, user and output folder, so that a ComfyUI in daily use is left as it is.
comfy: | python $(filter .venv-uv/%,$(UV))
	@test -f "$(COMFYUI)/main.py" || \
		{ echo 'Name a checkout of ComfyUI: make comfy COMFYUI=/path/to/ComfyUI'; exit 2; }
	@test -L "$(COMFYUI)/custom_nodes/qwen-vl-suite" || \
		! test -e "$(COMFYUI)/custom_nodes/qwen-vl-suite" || \
		{ echo 'custom_nodes/qwen-vl-suite is a folder there: move it away first.'; exit 2; }
	ln -sfn "$(CURDIR)" "$(COMFYUI)/custom_nodes/qwen-vl-suite"
	test -x .venv-comfyui/bin/python || \
		$(UV) venv --quiet --python "$$(command -v $(PYTHON))" .venv-comfyui
	$(UV) pip install --quiet --python .venv-comfyui/bin/python \
		-r "$(COMFYUI)/requirements.txt" -r requirements.txt --group torch
	mkdir -p .comfyui/user .comfyui/output
	cd "$(COMFYUI)" && "$(CURDIR)/.venv-comfyui/bin/python" main.py \
		--listen 127.0.0.1 --port $(COMFYUI_PORT) --disable-auto-launch \
		--user-directory "$(CURDIR)/.comfyui/user" --output-directory "$(CURDIR)/.comfyui/output" \
		--database-url "sqlite:///$(CURDIR)/.comfyui/comfyui.db" \
		$(shell nvidia-smi >/dev/null 2>&1 || echo --cpu) $(COMFYUI_ARGS)

clean:
	rm -rf .venv .venv-oldest .venv-uv .venv-comfyui .mypy_cache .ruff_cache .pytest_cache
