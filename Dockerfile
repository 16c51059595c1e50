# Images of InfluencerAI for the CPU and for CUDA, from one file: they differ in the build of torch.
#
#   docker build --build-arg PIP_EXTRA_INDEX_URL=ADDRESS --tag influencerai:0.1.0-cpu .
#   docker build --build-arg DEVICE=cuda --tag influencerai:0.1.0-cuda .
#
# ADDRESS is PyTorch's CPU index, which is on its "Get started" page. CUDA's libraries come with torch, the driver
# with the machine (NVIDIA's container toolkit).
ARG PYTHON_VERSION=3.11
FROM python:${PYTHON_VERSION}-slim-bookworm

# tini forwards signals and reaps processes; probes use wget. Debian keeps one version of each.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home influencerai \
    && install --directory --owner influencerai --group influencerai \
        /srv/influencerai /srv/influencerai/models

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CACHE_DIR=/var/cache/pip
WORKDIR /opt/source

# All dependencies; our own code, which changes more often, follows.
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY deploy/install.sh deploy/
COPY influencerai/__init__.py influencerai/
RUN --mount=type=cache,target=/var/cache/pip sh deploy/install.sh /opt/influencerai all

ARG DEVICE=cpu
RUN /opt/influencerai/bin/python -c 'import sys, torch; \
found = "cuda" if torch.version.cuda else "cpu"; \
sys.exit(None if found == sys.argv[1] else f"torch is built for {found}: see PIP_EXTRA_INDEX_URL")' "$DEVICE"

COPY deploy/head.sh deploy/
COPY influencerai influencerai
RUN --mount=type=cache,target=/var/cache/pip sh deploy/install.sh /opt/influencerai all

ENV PATH=/opt/influencerai/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    INFLUENCERAI_ROOT=/srv/influencerai \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /srv/influencerai
EXPOSE 3001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=6 \
    CMD ["wget", "--quiet", "--tries=1", "--timeout=5", "--output-document=/dev/null", "http://127.0.0.1:3001/healthz"]
ENTRYPOINT ["tini", "-s", "--"]
CMD ["influencerai", "serve"]
