# The reward service on CPUs: ONNX Runtime, and neither torch nor transformers.
FROM docker.io/library/python:3.11-slim-bookworm AS build
ARG EXTRAS=cpu,serve,otel
WORKDIR /src
RUN python -m venv --without-pip /opt/palate
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY palate palate
RUN python -m pip --python /opt/palate/bin/python install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"
COPY services /opt/palate/code/services
RUN /opt/palate/bin/python -m compileall -q /opt/palate/code

FROM docker.io/library/python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="palate-services-cpu" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 palate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin palate
COPY --from=build /opt/palate /opt/palate
# Everything under / is read-only where it runs: what is written goes to /tmp.
ENV PATH=/opt/palate/bin:$PATH \
    PYTHONPATH=/opt/palate/code \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /tmp
USER 10001:10001
EXPOSE 50051 50052 9090
ENTRYPOINT ["palate"]
CMD ["serve", "reward"]
