# The image of the server (target "server") and, with MCsquare added, that of the workers (target "worker").
#
#   docker build --target server --tag yaptide-server .
#   docker build --target worker --tag yaptide-worker .
#
# docker-compose.yml builds both; see docs/production.md.

FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/yaptide
# Dependencies are in a separate layer, which is reused while only yaptide's own code changes.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY yaptide/__init__.py yaptide/
COPY client client
RUN /opt/yaptide/bin/pip install --constraint constraints.txt ./client ".[all]"
COPY yaptide yaptide
RUN /opt/yaptide/bin/pip install --no-deps --force-reinstall .
# The code at its usual place, with the administration script, whose executable bit a wheel does not keep.
RUN install -d /usr/local/app \
    && ln -s /opt/yaptide/lib/python3.11/site-packages/yaptide /usr/local/app/yaptide \
    && chmod 755 /usr/local/app/yaptide/admin/db_manage.py

FROM python:3.11.14-slim-bookworm AS server
RUN groupadd --gid 10001 yaptide \
    && useradd --uid 10001 --gid yaptide --no-create-home --home-dir /var/lib/yaptide --shell /usr/sbin/nologin yaptide \
    && install -d -o yaptide -g yaptide -m 700 /var/lib/yaptide
COPY --from=build /opt/yaptide /opt/yaptide
COPY --from=build /usr/local/app /usr/local/app
ENV PATH=/opt/yaptide/bin:$PATH PYTHONUNBUFFERED=1 YAPTIDE_DATA_DIR=/var/lib/yaptide
WORKDIR /usr/local/app
USER yaptide
EXPOSE 5000
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/readyz', timeout=8)"]
CMD ["yaptide", "up", "--host", "0.0.0.0", "--port", "5000"]

FROM server AS worker
USER root
# Installs the build of MCsquare for the processor of the build machine: build the image on the same kind of machine.
RUN PIP_NO_CACHE_DIR=1 yaptide simulators install mcsquare
USER yaptide
# Pings the worker through the broker in CELERY_BROKER_URL.
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 \
    CMD celery --quiet inspect --timeout 10 --destination "worker@$HOSTNAME" ping
CMD ["yaptide", "worker", "--name", "worker"]
