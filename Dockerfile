# The controller's image: one virtual environment from uv.lock on a Python base, and nothing else.
#
#     docker build -t skyoperator:0.1.0 .
#
# The environment links to its base's interpreter: BUILDER_IMAGE and RUNTIME_IMAGE must hold the same Python at the same
# path (both from one family, say python:3.11-slim-bookworm, or Debian with python3 and python3-venv).
ARG BUILDER_IMAGE=python:3.11-slim-bookworm
ARG RUNTIME_IMAGE=python:3.11-slim-bookworm

FROM ${BUILDER_IMAGE} AS builder
ARG UV_VERSION=0.13.9
# For builds behind a mirror or a private CA: --build-arg sets the variable of that name for pip and uv, here only.
ARG PIP_CERT
ARG PIP_INDEX_URL
ARG SSL_CERT_FILE
ARG UV_DEFAULT_INDEX
ENV UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/skyoperator \
    UV_PYTHON=python3.11 \
    UV_PYTHON_DOWNLOADS=never
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml uv.lock ./
COPY controller/pyproject.toml controller/README.md controller/
# The dependencies are a layer of their own: a change of our code does not fetch them again.
RUN /opt/uv/bin/uv sync --frozen --no-dev --package skyoperator --no-install-workspace --compile-bytecode
COPY controller controller
RUN /opt/uv/bin/uv sync --frozen --no-dev --package skyoperator --no-editable --compile-bytecode

FROM ${RUNTIME_IMAGE}
# What can install software has no business in a running controller.
RUN cd /usr && rm -rf bin/pip* local/bin/pip* share/python-wheels lib/python3*/dist-packages \
    local/lib/python3*/site-packages local/lib/python3*/ensurepip lib/python3*/ensurepip
COPY --from=builder /opt/skyoperator /opt/skyoperator
# USER: kopf asks for the user's name, and no file in the image knows one for the number below.
ENV PATH=/opt/skyoperator/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    USER=skyoperator
USER 65532:65532
WORKDIR /
ENTRYPOINT ["python", "-m", "skyoperator"]
