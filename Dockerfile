# Diarist on CPUs, alone or as part of a fleet: the API by default, a worker with the command "diarist worker".
#
#   docker build -t diarist:cpu .                              models come into /models at the first start
#   docker build -t diarist:cpu --build-arg MODELS=baked .     models are in the image, nothing is fetched at run time
#   docker build -t diarist:cuda --build-arg DEVICE=cuda .     the embedded engine on an NVIDIA GPU too (docs/gpu.md)
#   docker run --read-only --tmpfs /tmp -e API_KEY=... -p 127.0.0.1:5000:5000 -v diarist:/data -v models:/models diarist:cpu
#
# Without an API key the service listens on loopback only, which inside a container is nobody.
# The whole way, fleets and Kubernetes included: docs/deployment.md
ARG MODELS=volume
ARG DEVICE=cpu
# The version, which is otherwise that of the next release: the repository, which has the tags, is not copied.
ARG VERSION=

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/diarist
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE.md ./
COPY conf conf
COPY src src
ARG VERSION
RUN SETUPTOOLS_SCM_PRETEND_VERSION="$VERSION" \
    /opt/diarist/bin/pip install --no-cache-dir -c constraints.txt ".[distributed,tracing]"
# The builds of ONNX Runtime for the CPU and for GPUs share their folder, so there must be only one.
ARG DEVICE
RUN if [ "$DEVICE" = cuda ]; then \
        SETUPTOOLS_SCM_PRETEND_VERSION="$VERSION" \
            /opt/diarist/bin/pip install --no-cache-dir -c constraints.txt ".[distributed,tracing,gpu]" \
        && /opt/diarist/bin/pip uninstall -y onnxruntime \
        && /opt/diarist/bin/pip install --no-cache-dir --no-deps --force-reinstall onnxruntime-gpu==1.26.0; \
    fi

FROM build AS models-volume
RUN mkdir /models

# The embedded engine's, with either Whisper; fetched from where "diarist models pull" finds them, checked by their hashes.
FROM build AS models-baked
RUN MODEL_DIR=/models ORT_DISABLE_TELEMETRY=1 /opt/diarist/bin/diarist models pull --all

# hadolint ignore=DL3006 # one of the two stages above
FROM models-${MODELS} AS models

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin diarist \
    && install -d -o diarist -g diarist /data /models
COPY --from=build /opt/diarist /opt/diarist
COPY --from=models --chown=10001:10001 /models /models

# The console is the log. ONNX Runtime would report to its makers.
ENV PATH=/opt/diarist/bin:$PATH \
    FLASK_HOST=0.0.0.0 \
    DATA_DIR=/data \
    MODEL_DIR=/models \
    LOG_FILE=/dev/null \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /data
USER 10001:10001
VOLUME ["/data"]
EXPOSE 5000
STOPSIGNAL SIGTERM

# Of the API; where a container is a worker, switch it off. The first start may have to fetch the models.
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('FLASK_PORT') or 5000), timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]

CMD ["diarist", "serve"]
