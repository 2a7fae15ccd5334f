# A worker for Docker and Kubernetes work pools: the code, and the packages of requirements.lock.
#
# NOT EXERCISED: this file was written beside the process pool, which is what the tests run. It was never built.
#
#   docker build -t calotype .
#   docker run --rm -e PREFECT_API_URL=http://HOST:4200/api calotype
#
# State lives elsewhere: give the container PREFECT_API_URL, MLFLOW_TRACKING_URI, CALOTYPE_PREDICT_INBOX,
# CALOTYPE_PREDICT_OUTPUT, CALOTYPE_LEDGER and a DVC remote (docs/operations.md).
FROM python:3.12-slim

# git: trainings record their commit. procps and curl: to look into a container that misbehaves.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git procps curl \
    && rm -rf /var/lib/apt/lists/*

ENV PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DVC_NO_ANALYTICS=1 \
    CALOTYPE_ROOT=/calotype \
    VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH

# The packages first: they change less often than the code.
WORKDIR /calotype
COPY requirements.lock ./
RUN python -m venv /opt/venv \
    && awk '/^[a-z]/ { on = /^uv==/ } on' requirements.lock > /tmp/uv.lock \
    && pip install --no-cache-dir --require-hashes --requirement /tmp/uv.lock \
    && uv pip sync --no-cache --require-hashes --compile-bytecode requirements.lock

COPY . .
RUN uv pip install --no-cache --no-deps --no-build-isolation --editable . \
    && useradd --create-home --uid 1000 calotype \
    && chown -R calotype /calotype
USER calotype

# In a Docker or Kubernetes pool the pool's own command takes the place of this one.
CMD ["prefect", "worker", "start", "--pool", "calotype", "--type", "process"]
