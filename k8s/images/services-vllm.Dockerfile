# The policy service on GPUs: vLLM, with the PyTorch and the transformers that it wants in place of our pins.
FROM docker.io/library/python:3.11-slim-bookworm AS build
ARG EXTRAS=serve,vllm,otel
WORKDIR /src
RUN python -m venv --without-pip /opt/palate
COPY constraints.txt pyproject.toml README.md LICENSE ./
# By itself, so that a change of ours does not fetch it again.
RUN sed -i -E "/^(torch|transformers)==/d" constraints.txt \
    && python -m pip --python /opt/palate/bin/python install --no-cache-dir --constraint constraints.txt vllm==0.33.0
COPY palate palate
RUN python -m pip --python /opt/palate/bin/python install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"
COPY services /opt/palate/code/services
RUN /opt/palate/bin/python -m compileall -q /opt/palate/code

FROM docker.io/library/python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="palate-services-vllm" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 palate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin palate
COPY --from=build /opt/palate /opt/palate
# Everything under / is read-only where it runs: what is written, compiled kernels too, goes to /tmp.
ENV PATH=/opt/palate/bin:$PATH \
    PYTHONPATH=/opt/palate/code \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HOME=/tmp
WORKDIR /tmp
USER 10001:10001
EXPOSE 50051 50052 9090
ENTRYPOINT ["palate"]
CMD ["serve", "policy"]
