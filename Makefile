# skyoperator: every verb that people and CI use. `make help` lists them.
SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/skyoperator
UV_VERSION := 0.13.9
UV := $(or $(shell command -v uv),$(CACHE)/uv/bin/uv)
RUN := $(UV) run --frozen
LOCAL := $(RUN) python -m deploy.local
SKYPILOT := 0.14.1
SKYPILOT_PYTHON := $(CACHE)/skypilot-$(SKYPILOT)/bin/python
# Airflow's environment is one of its own: its providers' pins exclude the controller's.
PROVIDER := cd airflow_plugin && env -u VIRTUAL_ENV $(UV) run --frozen
# The Airflows that the provider is for besides its environment's own. Each is built of its pins, and named by them and by what they fit.
AIRFLOWS := 2.11.2 3.1.8 3.2.2
# What they let in and do not start with: their API servers' own models are none to later ones (pydantic: discriminator-no-field).
AIRFLOW_EXCLUDES := fastapi<0.137
# Of these a whole Airflow runs, not imports alone.
AIRFLOW_COMPILED := 3.2.2
airflow_key = $(shell cat airflow_plugin/constraints/airflow-$(1).txt <(sed '/^\[tool/,$$d' airflow_plugin/pyproject.toml) | sha256sum | cut -c 1-8)
airflow_bin = $(CACHE)/airflow-$(1)-$(call airflow_key,$(1))/bin
CRD := skyclusters.skyoperator.dev.yaml

export PATH := $(CACHE)/bin:$(PATH)
# The reader's own cluster, if there is one; else the local one.
LOCAL_KUBECONFIG := $(CACHE)/local/kubeconfig
OWN_CLUSTER := $(KUBECONFIG)
export KUBECONFIG := $(or $(KUBECONFIG),$(LOCAL_KUBECONFIG))

.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: venv ## a SkyCluster from apply to gone, on a local Kubernetes (or on KUBECONFIG=...)
	@$(RUN) python -m deploy.demo $(if $(OWN_CLUSTER),--own-cluster)

.PHONY: test
test: lint unit compat parser integration fuzz e2e ## all of it: lint, unit, compat, parser, integration, fuzz, e2e

.PHONY: lint
lint: venv airflow_plugin/.venv/.synced ## ruff, mypy, import-linter
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports
	$(PROVIDER) mypy
	$(PROVIDER) lint-imports

.PHONY: unit
unit: venv tools provider ## tests/unit: no processes; and the Airflow provider's
	$(RUN) pytest -n 2 tests/unit

.PHONY: provider
provider: airflow_plugin/.venv/.synced ## tests/provider: the Airflow provider, without Airflow's processes
	$(PROVIDER) pytest -n 2 --rootdir .. ../tests/provider

.PHONY: compat
compat: $(foreach version,$(AIRFLOWS),$(call airflow_bin,$(version))/python) ## tests/provider with each of the other Airflows
	@$(MAKE) --no-print-directory --output-sync --jobs $(AIRFLOWS:%=compat-%)

# What `remote` sends knows no Airflow, as lint-imports sees to. Of warnings only those are errors that our own code is to blame for.
# Bytecode is written as it is used, even where the environment says not to: nothing else makes the second run fast.
.PHONY: $(AIRFLOWS:%=compat-%)
$(AIRFLOWS:%=compat-%): compat-%:
	cd airflow_plugin && PYTHONDONTWRITEBYTECODE= $(call airflow_bin,$*)/python -m pytest --rootdir .. -p no:cacheprovider --disable-warnings \
	  --ignore-glob '../tests/provider/test_remote_*' -o 'filterwarnings=error:::(skyoperator_provider|tests)' ../tests/provider

.PHONY: airflow-bin
airflow-bin: ## build an environment with another Airflow (AIRFLOW=3.2.2, say); print where its commands are
	@$(MAKE) --no-print-directory $(call airflow_bin,$(AIRFLOW))/python >&2
	@echo $(call airflow_bin,$(AIRFLOW))

.PHONY: constraints
constraints: $(UV) ## pin the other Airflows' environments anew; what is pinned and still fits stays
	cd airflow_plugin && for version in $(AIRFLOWS); do \
	  echo "apache-airflow==$$version" | $(UV) pip compile --quiet --python-version 3.11 --group test \
	    --constraint <(echo '$(AIRFLOW_EXCLUDES)') --no-emit-index-url --no-annotate --custom-compile-command "make constraints" \
	    --output-file constraints/airflow-$$version.txt pyproject.toml - >/dev/null; \
	done

.PHONY: mutants
mutants: venv ## break each invariant in a copy of the source: its test must fail there
	$(RUN) python -m tests.mutants

.PHONY: parser
parser: venv tools $(SKYPILOT_PYTHON) ## tests/parser: SkyPilot's own parser over the tasks that we accept
	SKYOPERATOR_SKYPILOT_PYTHON=$(SKYPILOT_PYTHON) $(RUN) pytest tests/parser

.PHONY: integration
integration: cluster-up tools ## tests/integration: the real kube-apiserver, a stand-in for SkyPilot
	KUBECONFIG=$(LOCAL_KUBECONFIG) $(RUN) pytest -n 4 tests/integration

.PHONY: bench
bench: cluster-up ## tests/bench: speed, memory and load with CLUSTERS=1000, printed beside the targets
	KUBECONFIG=$(LOCAL_KUBECONFIG) $(RUN) python -m tests.bench $(or $(CLUSTERS),1000)

.PHONY: four-steps
four-steps: cluster-up images tools airflow_plugin/.venv/.synced $(SKYPILOT_PYTHON) ## tests/bench: how long the example's four steps take, beside SkyPilot's CLI
	KUBECONFIG=$(LOCAL_KUBECONFIG) SKYOPERATOR_SKYPILOT_PYTHON=$(SKYPILOT_PYTHON) $(RUN) python -m tests.bench.four_steps

.PHONY: triggers
triggers: cluster-up tools airflow_plugin/.venv/.synced ## tests/triggers: TRIGGERS=1000 deferred tasks in one real triggerer; leave machine and cluster to it
	export KUBECONFIG=$(LOCAL_KUBECONFIG); $(PROVIDER) pytest -s --rootdir .. ../tests/triggers

.PHONY: fuzz
fuzz: cluster-up $(SKYPILOT_PYTHON) ## tests/fuzz: a thousand right, wrong and hostile objects (FUZZ_SEED=... repeats one run)
	KUBECONFIG=$(LOCAL_KUBECONFIG) SKYOPERATOR_SKYPILOT_PYTHON=$(SKYPILOT_PYTHON) $(RUN) pytest tests/fuzz

.PHONY: e2e
e2e: cluster-up images tools airflow_plugin/.venv/.synced ## tests/e2e: real kubelet, real SkyPilot, real Airflow, processes killed
	KUBECONFIG=$(LOCAL_KUBECONFIG) $(RUN) pytest --durations=20 tests/e2e

.PHONY: deaths
deaths: cluster-up tools $(if $(AIRFLOW),$(call airflow_bin,$(AIRFLOW))/python,airflow_plugin/.venv/.synced) ## tests/deaths: Airflow's processes die one by one (AIRFLOW=3.2.2: that one's)
	KUBECONFIG=$(LOCAL_KUBECONFIG) SKYOPERATOR_AIRFLOW_BIN=$(if $(AIRFLOW),$(call airflow_bin,$(AIRFLOW))) $(RUN) pytest tests/deaths

.PHONY: screenshots
screenshots: cluster-up images tools airflow_plugin/.venv/.synced ## docs/images: pages of a real Airflow, taken by /usr/bin/chromium
	KUBECONFIG=$(LOCAL_KUBECONFIG) $(RUN) --with playwright python -m tests.e2e.screenshots

.PHONY: soak
soak: cluster-up images tools ## tests/soak: failures provoked, SkyPilot's database wiped, some chaos; leave the machine to it
	KUBECONFIG=$(LOCAL_KUBECONFIG) $(RUN) pytest tests/soak

.PHONY: chaos
chaos: cluster-up images tools ## controller, SkyPilot and kube-apiserver killed 20 times each (SKYOPERATOR_CHAOS_SEED=... repeats a run)
	SKYOPERATOR_CHAOS_KILLS=$(or $(SKYOPERATOR_CHAOS_KILLS),20) KUBECONFIG=$(LOCAL_KUBECONFIG) $(RUN) pytest tests/soak/test_chaos.py

.PHONY: generate
generate: venv ## write what is made: the CRD and the chart's copy of it, the pages of invariants and of deaths
	$(RUN) python -m skyoperator.crd crds/$(CRD) deploy/helm/skyoperator/files/$(CRD)
	$(RUN) python -m tests.mutants.document
	$(RUN) python -m tests.deaths.table

.PHONY: format
format: venv ## let ruff fix and format
	$(RUN) ruff check --fix
	$(RUN) ruff format

.PHONY: tools
tools: venv ## kubectl and helm
	@$(LOCAL) tools

.PHONY: cluster-up
cluster-up: venv ## start the local one-node Kubernetes
	@$(LOCAL) cluster-up

.PHONY: cluster-down
cluster-down: venv ## end it; nothing of it stays but its caches
	@$(LOCAL) cluster-down

.PHONY: cluster-status
cluster-status: venv ## how the local Kubernetes fares
	@$(LOCAL) cluster-status

.PHONY: images
images: venv ## build the images and load them into the local Kubernetes
	@$(LOCAL) cluster-up images

.PHONY: venv
venv: .venv/.synced

.venv/.synced: uv.lock pyproject.toml controller/pyproject.toml $(UV)
	$(UV) sync --frozen --compile-bytecode
	@touch $@

airflow_plugin/.venv/.synced: airflow_plugin/uv.lock airflow_plugin/pyproject.toml $(UV)
	cd airflow_plugin && $(UV) sync --frozen --compile-bytecode
	@touch $@

# An environment of its own: SkyPilot's pins exclude the controller's.
$(SKYPILOT_PYTHON):
	$(UV) venv --quiet --clear --python 3.11 $(CACHE)/skypilot-$(SKYPILOT).partial
	VIRTUAL_ENV=$(CACHE)/skypilot-$(SKYPILOT).partial $(UV) pip install --quiet --compile-bytecode "skypilot[kubernetes]==$(SKYPILOT)"
	rm -rf $(CACHE)/skypilot-$(SKYPILOT) && mv $(CACHE)/skypilot-$(SKYPILOT).partial $(CACHE)/skypilot-$(SKYPILOT)

# Of the provider only what Airflow finds it by is installed. Its code is on PYTHONPATH, so work trees can share the environment.
$(CACHE)/airflow-%/bin/python: VERSION = $(firstword $(subst -, ,$*))
$(CACHE)/airflow-%/bin/python: PARTIAL = $(CACHE)/airflow-$*.partial
$(CACHE)/airflow-%/bin/python: | $(UV)
	$(UV) venv --quiet --clear --relocatable --python 3.11 $(PARTIAL)
	VIRTUAL_ENV=$(PARTIAL) nice -n 19 $(UV) pip install --quiet --no-deps $(if $(filter $(AIRFLOW_COMPILED),$(VERSION)),--compile-bytecode) \
	  --requirements airflow_plugin/constraints/airflow-$(VERSION).txt ./airflow_plugin
	VIRTUAL_ENV=$(PARTIAL) $(UV) pip check --quiet || { echo "The pins no longer fit: make constraints"; exit 1; }
	rm -r $(PARTIAL)/lib/python3.11/site-packages/skyoperator_provider
	rm -rf $(@D:/bin=) && mv $(PARTIAL) $(@D:/bin=)

$(CACHE)/uv/bin/uv:
	python3 -m venv $(CACHE)/uv
	$(CACHE)/uv/bin/pip install --quiet uv==$(UV_VERSION)
