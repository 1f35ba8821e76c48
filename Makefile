# make demo   set up, run the main job on the shipped demo model, end with the report's path
# make test   set up, run all tests
# make check  set up, lint and types
# make docs   set up, build the documents as a site, in site/
# make bench  set up, measure this tool and its peers; BENCH='--help' shows what can be chosen

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := examples/plate_reader
WORKSPACE := demo-workspace
REPORT := demo-report.json
RUN := $(BIN)/topsideas gcu mix_precision --input_onnx $(DEMO)/lprnet-pt-op13-fp32-N.onnx \
	--sample_dir $(DEMO)/lprnet-samples --workspace $(WORKSPACE) --output_json $(REPORT)

.PHONY: demo test check docs bench clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	@echo "== a plate reader that is right in fp32 and misreads plates in fp16: which ops are to blame?"
	$(RUN) --clean
	@echo
	@echo "== the same, written as the model to deploy"
	$(RUN) --finalize
	@echo
	@echo "the report: $(CURDIR)/$(REPORT)"

# Tests start the command some 200 times: its modules are compiled by the first, whatever the environment says.
test: $(VENV)/installed
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 2 --quiet

check: $(VENV)/installed
	$(BIN)/ruff format --check src tests examples benchmarks docs
	$(BIN)/ruff check src tests examples benchmarks docs
	$(BIN)/mypy

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "the site: $(CURDIR)/site/index.html"

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.peers $(BENCH)

clean:
	rm -rf $(VENV) $(WORKSPACE) $(REPORT) site benchmarks/.venvs benchmarks/.work
