# make demo       set up, write a phantom archive, run the whole job on it
# make test       set up, run the test suite without the slow rest
# make test-slow  the slow rest
# make lint       ruff, mypy --strict, import-linter
# make viewer     build the page of `raypipe serve` anew (needs Node.js 20)
# make lock       resolve configs/locks/ anew (needs uv)
# make audit      known holes in what the locks pin; needs the advisories of PyPI, and says if not

PYTHON ?= python3
VENV ?= .venv
LOCK := configs/locks/cpu.txt
READY := $(VENV)/.ready
# Tried only where the configured package indexes have no CPU build of PyTorch.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Nodes of one cluster send each other what these make, so that both locks pin the same.
AGREE := ray|pyarrow|numpy|scipy|pydantic|pydantic-core|cloudpickle|protobuf|grpcio|msgpack|fsspec|s3fs|aiobotocore|botocore|transformers|safetensors|pydicom|nibabel|highdicom|pillow|pylibjpeg|pylibjpeg-.*|python-gdcm|fastapi|starlette|uvicorn|aiohttp|xgrammar

.PHONY: demo test test-slow lint viewer lock audit clean

demo: $(READY)
	$(VENV)/bin/raypipe demo --config configs/tiny.yaml --output out/demo

test: $(READY)
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

test-slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow $(PYTEST_ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

viewer:
	cd raypipe/serve/viewer && npm ci --ignore-scripts --no-audit --no-fund && npm run check && npm run build

lock:
	uv pip compile pyproject.toml --extra cpu --extra dev --override configs/locks/overrides.txt \
	  --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --index-strategy unsafe-best-match $(UV_ARGS) -o $(LOCK)
	grep -E '^($(AGREE))==' $(LOCK) > configs/locks/.agree.txt
	uv pip compile pyproject.toml configs/locks/gpu.in --extra gpu \
	  --override configs/locks/overrides_gpu.txt --constraint configs/locks/.agree.txt \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --index-strategy unsafe-best-match $(UV_ARGS) \
	  -o configs/locks/gpu.txt
	rm configs/locks/.agree.txt

# strict: a package that the service does not know fails the target, instead of counting as sound.
audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit==2.10.1
	sed 's/+cpu$$//' $(LOCK) > $(VENV)/audit/cpu.txt
	for lock in $(VENV)/audit/cpu.txt configs/locks/gpu.txt; do \
	  $(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $$lock \
	  || exit 1; done

$(READY): $(LOCK) pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-deps "$$(grep '^torch==' $(LOCK))" \
	  || $(VENV)/bin/python -m pip install --no-deps "$$(grep '^torch==' $(LOCK))" --index-url $(TORCH_INDEX)
	$(VENV)/bin/python -m pip install --quiet --no-deps -r $(LOCK)
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) out
