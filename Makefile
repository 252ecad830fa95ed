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
test: lint unit parser integration fuzz e2e ## all of it: lint, unit, parser, integration, fuzz, e2e

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

.PHONY: triggers
triggers: cluster-up tools airflow_plugin/.venv/.synced ## tests/triggers: TRIGGERS=1000 deferred tasks in one real triggerer; leave machine and cluster to it
	export KUBECONFIG=$(LOCAL_KUBECONFIG); $(PROVIDER) pytest -s --rootdir .. ../tests/triggers

.PHONY: fuzz
fuzz: cluster-up $(SKYPILOT_PYTHON) ## tests/fuzz: a thousand right, wrong and hostile objects (FUZZ_SEED=... repeats one run)
	KUBECONFIG=$(LOCAL_KUBECONFIG) SKYOPERATOR_SKYPILOT_PYTHON=$(SKYPILOT_PYTHON) $(RUN) pytest tests/fuzz

.PHONY: e2e
e2e: cluster-up images tools airflow_plugin/.venv/.synced ## tests/e2e: real kubelet, real SkyPilot, real Airflow, processes killed
	KUBECONFIG=$(LOCAL_KUBECONFIG) $(RUN) pytest tests/e2e

.PHONY: soak
soak: cluster-up images tools ## tests/soak: failures provoked, SkyPilot's database wiped, some chaos; leave the machine to it
	KUBECONFIG=$(LOCAL_KUBECONFIG) $(RUN) pytest tests/soak

.PHONY: chaos
chaos: cluster-up images tools ## controller, SkyPilot and kube-apiserver killed 20 times each (SKYOPERATOR_CHAOS_SEED=... repeats a run)
	SKYOPERATOR_CHAOS_KILLS=$(or $(SKYOPERATOR_CHAOS_KILLS),20) KUBECONFIG=$(LOCAL_KUBECONFIG) $(RUN) pytest tests/soak/test_chaos.py

.PHONY: generate
generate: venv ## write what is made: the CRD and the chart's copy of it, the page of invariants
	$(RUN) python -m skyoperator.crd crds/$(CRD) deploy/helm/skyoperator/files/$(CRD)
	$(RUN) python -m tests.mutants.document

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

$(CACHE)/uv/bin/uv:
	python3 -m venv $(CACHE)/uv
	$(CACHE)/uv/bin/pip install --quiet uv==$(UV_VERSION)
