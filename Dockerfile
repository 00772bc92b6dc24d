# The relay as an image: docker build -t outbox-relay .
#
# BASE is any image with Python 3.11 or later as python3, with its venv module. A digest pins it:
# --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# The dashboard, and every database and broker that needs a package. What another list adds comes without hashes.
ARG EXTRAS=relay,admin,postgresql,amqp,redis
WORKDIR /build
# Two environments: this one holds pip and the build backend and stays behind.
COPY constraints.txt deploy/image/requirements.txt deploy/image/build-requirements.txt ./
RUN python3 -m venv tools \
    && tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: -r build-requirements.txt
# What compiles the hot loops. It stays behind too; without it they are Python, for more CPU.
ARG COMPILER="gcc libc6-dev zlib1g-dev"
RUN test -z "$COMPILER" || { apt-get update && apt-get install -y --no-install-recommends $COMPILER; }
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY migrations migrations
COPY outbox_relay outbox_relay
# Bytecode is written here: at run time the file system may be read-only, and every start would
# compile everything again. The C sources that some wheels carry are of no use.
RUN tools/bin/python -m hatchling build -t wheel -d dist \
    && python3 -m venv --without-pip /opt/outbox-relay \
    && wheel="$(echo dist/*.whl)" \
    && tools/bin/python -m pip --python /opt/outbox-relay/bin/python3 install \
        --no-cache-dir --disable-pip-version-check --compile --only-binary :all: \
        --require-hashes --no-deps -r requirements.txt \
    && tools/bin/python -m pip --python /opt/outbox-relay/bin/python3 install \
        --no-cache-dir --disable-pip-version-check --compile --only-binary :all: \
        -c constraints.txt "${wheel}[${EXTRAS}]" \
    && find /opt/outbox-relay -name '*.c' -delete \
    && tools/bin/cyclonedx-py environment --output-reproducible --no-validate \
        -o /opt/outbox-relay/sbom.cdx.json /opt/outbox-relay/bin/python3

FROM ${BASE}
LABEL org.opencontainers.image.title="outbox-relay" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/outbox-relay /opt/outbox-relay
# All addresses: Prometheus and the kubelet come from outside of the container.
ENV PATH=/opt/outbox-relay/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OUTBOX_RELAY_HTTP__HOST=0.0.0.0
EXPOSE 9464
# A number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 65532:65532
WORKDIR /
# The exec form: the relay is process 1 and gets SIGTERM itself.
ENTRYPOINT ["outbox-relay"]
CMD ["run"]
