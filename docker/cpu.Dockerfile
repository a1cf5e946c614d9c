# Every role without a GPU: `worker cpu`, `worker gpu --devices cpu`, beat, Flower, the command line.
# Build from the repository's root: docker build -f docker/cpu.Dockerfile -t mattemill:local .
# The tag is pinned; add the digest that your registry shows when you build for production.
ARG PYTHON=python:3.12.12-slim-trixie

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY requirements.lock ./
RUN python -m venv /opt/mattemill \
    && /opt/mattemill/bin/pip install --constraint requirements.lock setuptools
COPY . .
# The lock pins every version; wheels only, so that nothing has to be compiled. heic: photos of phones (LGPL).
ARG EXTRAS=heic
RUN /opt/mattemill/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && wheel="$(echo /wheels/*.whl)" \
    && /opt/mattemill/bin/pip install --only-binary :all: --constraint requirements.lock \
        "mattemill[${EXTRAS}] @ file://${wheel}"

FROM ${PYTHON}
# pip stays in the environment: `mattemill model fetch` downloads weights with it.
COPY --from=build /opt/mattemill /opt/mattemill
RUN groupadd --gid 10001 mattemill \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/mattemill --shell /usr/sbin/nologin mattemill \
    && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/mattemill
# All that is ever written lies in /var/lib/mattemill (a volume) and /tmp: the root file system may be read-only.
ENV PATH=/opt/mattemill/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    MATTEMILL_HOME=/var/lib/mattemill MATTEMILL_LOG_FORMAT=json \
    NUMBA_CACHE_DIR=/var/lib/mattemill/cache/numba
USER 10001:10001
# Compiled now, no first image waits for it. A new volume takes it over; another processor compiles again, once.
RUN ["python", "-c", "from model.cutout import warm_up; warm_up()"]
WORKDIR /var/lib/mattemill
VOLUME /var/lib/mattemill
STOPSIGNAL SIGTERM
ENTRYPOINT ["mattemill"]
CMD ["worker", "cpu"]
HEALTHCHECK --interval=60s --timeout=15s --start-period=180s --retries=3 \
    CMD ["python", "-m", "workers.health", "cpu"]
