# Two images: `web`, the default, for web processes, worker and migrations, and `engine`, which is the
# same and the bundled model with what runs it. docs/how-to/deploy-with-compose.md
#
# The base stands twice, so that Dependabot sees it and asks for newer ones. A digest behind the tag
# (name:tag@sha256:…) pins it for good, and Dependabot then moves both.

# --- What is installed, with hashes, and compiled ---------------------------------------------
FROM python:3.13.15-slim-trixie AS build-web
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
# Without pip: the one outside installs into it and stays here.
RUN python -m venv --without-pip /opt/venv
WORKDIR /app
COPY requirements.txt ./
# --no-deps: the file names everything, and a package that pip finds by itself has no hash.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes \
        --no-compile -r requirements.txt \
    # By hash: bytecode by date would be stale where an image's layers lose their dates.
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv
COPY manage.py gunicorn.conf.py LICENSE NOTICE ./
COPY accounts accounts
COPY consciousness consciousness
COPY monitoring monitoring
COPY sovereigncore sovereigncore
COPY templates templates
COPY scripts/healthcheck.py scripts/serve_engine.py scripts/
RUN python -m compileall -q --invalidation-mode unchecked-hash /app

FROM build-web AS build-engine
COPY requirements-engine.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --only-binary :all: --no-deps --require-hashes \
        --no-compile -r requirements-engine.txt \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv

# --- What runs ------------------------------------------------------------------------------
FROM python:3.13.15-slim-trixie AS runtime
# Nothing is installed into a running image, so nothing in it installs. /data belongs to whom the
# platform runs as, and so does a volume that is mounted there for the first time.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.13/ensurepip \
        /usr/local/lib/python3.13/site-packages/pip /usr/local/lib/python3.13/site-packages/pip-* \
    && groupadd --system --gid 10001 sovereigncore \
    && useradd --system --uid 10001 --gid 10001 --home-dir /data --no-create-home \
        --shell /usr/sbin/nologin sovereigncore \
    && install -d -o 10001 -g 10001 -m 700 /data /backups
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=sovereigncore.settings \
    DATA_DIR=/data
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.title="SovereignCore" \
      org.opencontainers.image.description="Your own AI service, on your own machine." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13.15-slim-trixie"

FROM runtime AS engine
USER 0:0
# llama.cpp counts on it. Its version is the base's release's: pinning it would only break the build
# on the day of a fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=build-engine /opt/venv /opt/venv
COPY --from=build-engine /app /app
# Other containers ask it, with ENGINE_API_KEY.
ENV ENGINE_BIND=0.0.0.0
LABEL org.opencontainers.image.title="SovereignCore engine" \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-Gemma-Terms-of-Use"
EXPOSE 8529
VOLUME /data
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "scripts/healthcheck.py", "http://127.0.0.1:8529/health"]
CMD ["python", "scripts/serve_engine.py"]

FROM runtime AS web
COPY --from=build-web /opt/venv /opt/venv
COPY --from=build-web /app /app
ENV BIND=0.0.0.0
EXPOSE 8528
VOLUME /data
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "scripts/healthcheck.py", "http://127.0.0.1:8528/live"]
CMD ["gunicorn", "-c", "gunicorn.conf.py", "sovereigncore.wsgi"]
