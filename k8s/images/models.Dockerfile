# An image of services with models inside, for overlays/local alone: the build context is copied to /models.
# checkov:skip=CKV_DOCKER_7: the image is one of the above, named by the caller with its tag
ARG IMAGE=localhost/palate-services-cpu:local
FROM ${IMAGE}
# Owned by who runs it: safetensors files are written for their owner alone.
COPY --chown=10001:10001 . /models
USER 10001:10001
