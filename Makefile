# What contributors do, by name; `make help` lists it. Everything is installed into .venv and .venvs/*.

PYTHON ?= python3
VERSIONS := 3.10 3.11 3.12 3.13

# The lower bounds of pyproject.toml. MLflow 2.9 imports pkg_resources, which newer setuptools no longer has.
OLDEST := mlflow==2.9.2 psutil==5.9.0 tenacity==8.2.0 cffi==1.15.0 click==8.0.0 platformdirs==3.0.0 rich==13.0.0 \
	'setuptools<80'

LINUX := $(filter Linux,$(shell uname -s))
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet
SOURCES := pyproject.toml CMakeLists.txt README.md LICENSE \
	$(shell find csrc python -type f -not -name '*.pyc' -not -name '.*')

export CC
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# MLflow must not phone home from a demo, a test or a benchmark.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

MAKEFLAGS += --no-print-directory
# The goals print as they go, and the last one, pytest, has the last word.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-python test-c lint types format catalogue screenshots bench wheel wheel-pure \
	test-pure test-oldest test-elsewhere test-versions test-frameworks clean check check-python check-cc

# $(call two_at_a_time,goals): what waits most of the time; the output of each comes when it has ended.
two_at_a_time = mkdir -p build; echo "make: running" $1 "two at a time"; printf '%s\n' $1 | xargs -P 2 -I{} sh -c \
	'$(MAKE) {} >build/{}.log 2>&1; status=$$?; cat build/{}.log; exit $$status'

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: check .venv/.demo .venv/.package ## Builds and installs the package into .venv, then runs the demo
	@$(BIN)/python -m examples.demo

test: check lint types test-c test-python ## Lint, types, the C tests (plain, ASan+UBSan, TSan), then pytest

test-python: check .venv/.test .venv/.package ## Runs pytest against the native build; ARGS=... is passed on
	@# In the order of their names: the files that take long, those with MLflow, are not left for the end.
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-c: check $(if $(LINUX),test-c-plain test-c-asan test-c-tsan) ## Runs the C tests plain and with sanitizers

lint: check-python .venv/.lint ## Looks for mistakes and for code that is not formatted
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@echo clang-format --dry-run
	@find csrc tests benchmarks -name '*.[ch]' | xargs $(BIN)/clang-format --dry-run -Werror

types: check .venv/.lint .venv/.test .venv/.package ## Checks the types with mypy
	$(BIN)/mypy

format: check-python .venv/.lint ## Formats the Python and the C code
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	@find csrc tests benchmarks -name '*.[ch]' | xargs $(BIN)/clang-format -i

catalogue: check .venv/.package ## Writes docs/metrics.md from the sources' own tables
	$(BIN)/python -m scripts.write_catalogue

screenshots: check .venv/.test .venv/.package ## Takes the pictures of docs/pictures (Debian: chromium, fonts-dejavu-core)
	$(BIN)/python -m scripts.take_screenshots

bench: check .venv/.bench .venv/.package ## Runs the benchmarks; ARGS=... is passed on
	$(BIN)/python -m benchmarks $(ARGS)

wheel: check dist/.native ## Builds the wheel with the C core: one for all Pythons from 3.10
	@cat dist/.native

wheel-pure: check-python dist/.pure ## Builds the wheel without the C core, for any system
	@cat dist/.pure

test-pure: check-python .venvs/pure/.ready ## Runs pytest on the wheel without the C core
	SYSMETRICS_NATIVE_TEST_BACKEND=psutil .venvs/pure/bin/python -m pytest -m 'not long and not once' $(ARGS)
	SYSMETRICS_NATIVE_TEST_BACKEND=psutil .venvs/pure/bin/python -m pytest tests/mlflow/test_gpu_run.py $(ARGS)

test-oldest: check .venvs/oldest/.ready ## Runs pytest with Python 3.10 and the oldest supported MLflow
	.venvs/oldest/bin/python -m pytest -m 'not long and not once' $(ARGS)
	.venvs/oldest/bin/python -m pytest tests/mlflow/test_gpu_run.py $(ARGS)

test-elsewhere: check check-python dist/.native dist/.pure ## Runs test-frameworks, test-oldest and test-pure, two at a time
	@$(call two_at_a_time,test-frameworks test-oldest test-pure)

test-frameworks: check .venvs/frameworks/.ready ## Runs pytest with PyTorch, Lightning, transformers and Ray
	.venvs/frameworks/bin/python -m pytest tests/mlflow/frameworks $(ARGS)

# The main run has the Python that make was given, test-oldest has 3.10.
test-versions: check dist/.native ## Runs pytest, without MLflow, on the supported Pythons that no other target has
	@found=; for version in $(filter-out 3.10 $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'),$(VERSIONS)); do \
		if scripts/find-python $$version >/dev/null; then found="$$found test-on-$$version"; \
		elif [ -n "$$CI" ]; then echo "make: needs Python $$version too, where CI is set" >&2; exit 1; \
		else echo "make: there is no Python $$version here: not tested with it"; fi; \
	done; [ -n "$$found" ] || { echo "make: needs one of Python $(VERSIONS), by the name python3.x" >&2; exit 1; }; \
	$(call two_at_a_time,$$found)

clean: ## Removes everything that was built or installed here
	rm -rf .venv .venvs build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache

# ---- what has to be there before anything else happens -----------------------

check: check-python check-cc

check-python:
	@found=$$($(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null); \
	case " $(VERSIONS) " in *" $${found%.*} "*) ;; *) \
		echo "make: needs Python 3.10 to 3.13, found $${found:-none} at $(PYTHON);" \
			"set PYTHON=/path/to/python3.11" >&2; exit 1;; esac; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $(PYTHON) lacks the module venv; install it (Debian: python3-venv)" >&2; exit 1; }

check-cc: # only Linux has a C core to compile
ifdef LINUX
	@printf '#include <stdio.h>\n' | $(CC) -x c -fsyntax-only - 2>/dev/null || { \
		echo "make: needs a working C compiler, found none at $(CC); install gcc or clang (Debian:" \
			"build-essential), or set CC=/path/to/cc" >&2; exit 1; }
endif

# ---- environments ------------------------------------------------------------

# pip with --group came in 25.1; it serves the other environments too, which therefore have none of their own.
.venv/.pip:
	@echo "make: creating .venv"
	@$(PYTHON) -m venv .venv
	@$(PIP) install 'pip>=25.1'
	@touch $@

# One stamp for each dependency group of pyproject.toml.
$(addprefix .venv/.,bench c demo lint test): .venv/.%: pyproject.toml .venv/.pip
	@echo "make: installing the dependency group $*"
	@$(PIP) install --group $*
	@touch $@

# Of the same version each time, so it must be forced; its dependencies need not.
.venv/.package: dist/.native
	@$(PIP) install "$$(cat $<)"
	@$(PIP) install --force-reinstall --no-deps "$$(cat $<)"
	@touch $@

# $(call environment,interpreter,group,other requirements): installs them and the wheel that $< names into $(@D).
define environment
	@echo "make: preparing $(@D)"
	@"$$($1)" -m venv --clear --without-pip $(@D)
	@$(PIP) --python $(@D)/bin/python install --group $2 $3 "$$(cat $<)"
	@touch $@
endef

.venvs/pure/.ready: dist/.pure
	$(call environment,command -v $(PYTHON),test)

.venvs/oldest/.ready: dist/.native
	$(call environment,scripts/find-python 3.10,test,$(OLDEST))

.venvs/frameworks/.ready: dist/.native
	$(call environment,command -v $(PYTHON),test-frameworks)

.PRECIOUS: .venvs/3.%/.ready
.venvs/3.%/.ready: dist/.native
	$(call environment,scripts/find-python 3.$*,test-light)

test-on-3.%: .venvs/3.%/.ready
	.venvs/3.$*/bin/python -m pytest -m 'not long and not once' $(ARGS)

# ---- builds ------------------------------------------------------------------

# Each stamp holds the name of its wheel.
dist/.native dist/.pure: $(SOURCES) .venv/.pip
	@echo "make: building the wheel$(if $(filter %pure,$@), without the C core)"
	@$(if $(filter %pure,$@),SYSMETRICS_CORE=OFF) $(PIP) wheel --no-deps --wheel-dir dist .
	@ls -t dist/*.whl | head -n 1 >$@

C_FLAGS_plain := -DSYSMETRICS_WERROR=ON
C_FLAGS_asan := -DSYSMETRICS_SANITIZE=address,undefined
C_FLAGS_tsan := -DSYSMETRICS_SANITIZE=thread

build-c-%: .venv/.c
	@$(BIN)/cmake -S . -B build/$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja --log-level=WARNING $(C_FLAGS_$*)
	@$(BIN)/cmake --build build/$* -- --quiet

test-c-%: build-c-%
	@echo "make: C tests, $*"
	@$(BIN)/ctest --test-dir build/$* --output-on-failure --no-tests=error
