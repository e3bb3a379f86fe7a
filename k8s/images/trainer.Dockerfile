# The trainer: `palate train`, `palate collect`, `palate export`. For machines without GPUs a fifth of the size:
#   --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
FROM docker.io/library/python:3.11-slim-bookworm AS build
ARG EXTRAS=cpu,train
ARG TORCH_INDEX=https://pypi.org/simple
WORKDIR /src
RUN python -m venv --without-pip /opt/palate
COPY constraints.txt pyproject.toml README.md LICENSE ./
# By itself, so that a change of ours does not fetch it again.
RUN python -m pip --python /opt/palate/bin/python install --no-cache-dir --constraint constraints.txt \
      --extra-index-url "${TORCH_INDEX}" torch==2.13.0 transformers==5.23.0
COPY palate palate
RUN python -m pip --python /opt/palate/bin/python install --no-cache-dir --constraint constraints.txt \
      --extra-index-url "${TORCH_INDEX}" ".[${EXTRAS}]"
COPY trainer /opt/palate/code/trainer
RUN /opt/palate/bin/python -m compileall -q /opt/palate/code

FROM docker.io/library/python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="palate-trainer" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 palate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin palate
COPY --from=build /opt/palate /opt/palate
# Everything under / is read-only where it runs: what is written goes to /tmp and to the folder of the run.
ENV PATH=/opt/palate/bin:$PATH \
    PYTHONPATH=/opt/palate/code \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    HF_HUB_OFFLINE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HOME=/tmp
WORKDIR /tmp
USER 10001:10001
EXPOSE 9090 29500
ENTRYPOINT ["palate"]
CMD ["train", "--help"]
