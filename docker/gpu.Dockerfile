# `worker gpu` on NVIDIA GPUs: TensorRT, TensorRT for RTX, no CUDA toolkit, no compiler.
# Build from the repository's root: docker build -f docker/gpu.Dockerfile -t mattemill:local-gpu .
# The tag is pinned; add the digest that your registry shows when you build for production.
ARG CUDA=nvidia/cuda:12.9.1-base-ubuntu24.04

FROM ${CUDA} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY requirements.lock ./
# The version whose classes the tests compare the runtime loop with. `tensorrt-cu12` is a source package with nothing to
# compile, so this one is not `--only-binary`; its libraries are wheels of NVIDIA's own index.
ARG TENSORRT=11.4.0.106
RUN python3 -m venv /opt/mattemill \
    && /opt/mattemill/bin/pip install --constraint requirements.lock setuptools \
    && /opt/mattemill/bin/pip install --extra-index-url https://pypi.nvidia.com "tensorrt-cu12==${TENSORRT}"
COPY . .
# The lock pins every other version; wheels only, so that nothing has to be compiled. heic: photos of phones (LGPL).
ARG EXTRAS=gpu,heic
RUN /opt/mattemill/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && wheel="$(echo /wheels/*.whl)" \
    && /opt/mattemill/bin/pip install --only-binary :all: --constraint requirements.lock \
        "mattemill[${EXTRAS}] @ file://${wheel}"

FROM ${CUDA}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/mattemill /opt/mattemill
RUN groupadd --gid 10001 mattemill \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/mattemill --shell /usr/sbin/nologin mattemill \
    && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/mattemill
# The base image asks for a driver of its own CUDA, which nothing here uses: any driver with CUDA 12 will do.
# Engines are built once and kept in /var/lib/mattemill/engines: keep the volume. What CUDA compiles lies there too.
ENV PATH=/opt/mattemill/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    MATTEMILL_HOME=/var/lib/mattemill MATTEMILL_LOG_FORMAT=json \
    NUMBA_CACHE_DIR=/var/lib/mattemill/cache/numba CUDA_CACHE_PATH=/var/lib/mattemill/cache/cuda \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility NVIDIA_DISABLE_REQUIRE=1
USER 10001:10001
# Compiled now: loaders need it for photos with a wide gamut. A new volume takes it over.
RUN ["python", "-c", "from model.cutout import warm_up; warm_up()"]
WORKDIR /var/lib/mattemill
VOLUME /var/lib/mattemill
STOPSIGNAL SIGTERM
ENTRYPOINT ["mattemill"]
CMD ["worker", "gpu"]
# The first start builds the engine, which takes minutes.
HEALTHCHECK --interval=60s --timeout=15s --start-period=1800s --retries=3 \
    CMD ["python", "-m", "workers.health", "gpu"]
