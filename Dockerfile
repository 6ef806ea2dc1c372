# syntax=docker/dockerfile:1

# libvirt-python has no wheels: it is built here against the same Debian's libvirt that the last stage runs with.
FROM python:3.13-slim-trixie AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libvirt-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv==0.13.8
ENV UV_PROJECT_ENVIRONMENT=/opt/hostler \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1
WORKDIR /build
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-cache --python /usr/local/bin/python3

FROM python:3.13-slim-trixie
# libvirt0 holds the driver for remote hosts; ssh is what qemu+ssh runs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libvirt0 openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 hostler \
    && useradd --uid 65532 --gid 65532 --create-home --shell /usr/sbin/nologin hostler
COPY --from=build /opt/hostler /opt/hostler
WORKDIR /app
COPY crds crds
COPY drivers drivers
COPY engine engine
COPY operator operator
COPY placement placement
COPY reconcilers reconcilers
COPY xmlgen xmlgen
COPY LICENSE ./
# The root file system may be read-only: nothing is written but below /tmp.
ENV PATH=/opt/hostler/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["python", "/app/operator"]
