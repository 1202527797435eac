# syntax=docker/dockerfile:1

FROM python:3.12-slim AS build
WORKDIR /build
RUN python -m venv /opt/pointsman
COPY pyproject.toml README.md LICENSE ./
COPY router ./router
RUN /opt/pointsman/bin/pip install --no-cache-dir --no-compile ".[redis]" \
 && /opt/pointsman/bin/python -m compileall -q /opt/pointsman/lib

FROM python:3.12-slim
LABEL org.opencontainers.image.title="pointsman" \
      org.opencontainers.image.description="A traffic router for model servers" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --home-dir /var/lib/pointsman --shell /usr/sbin/nologin pointsman \
 && install -d -o pointsman -g pointsman /var/lib/pointsman /etc/pointsman
COPY --from=build /opt/pointsman /opt/pointsman
COPY config/router.docker.yaml /etc/pointsman/router.yaml
ENV PATH=/opt/pointsman/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Nothing outside the state directory is written: `docker run --read-only` works.
VOLUME /var/lib/pointsman
USER pointsman
EXPOSE 8080 9901
# drain_timeout (30 s) and a second: run with `docker stop --time 35`
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["pointsman", "status", "--quiet"]
ENTRYPOINT ["pointsman"]
CMD ["serve", "/etc/pointsman/router.yaml"]
