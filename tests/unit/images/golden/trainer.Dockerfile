# The trainer: the base image and what training needs beside it. Its environment sees the base's packages and cannot
# replace them. Credentials come when it runs, in its environment or as a mounted file; none is here.
ARG BASE_IMAGE
ARG ROOT_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base

FROM ${ROOT_IMAGE} AS build
ARG STAGE=build
LABEL newsbert.stage=$STAGE
COPY --from=base /opt/packages /opt/packages
COPY pip.conf torch.conf torch.txt requirements.txt /build/
ENV PIP_CONFIG_FILE=/build/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/trainer \
 && echo /opt/packages/lib/python*/site-packages > "$(echo /opt/trainer/lib/python*/site-packages)/packages.pth"
# torch by itself first: from an index of CPU builds, where pip's own would give one for CUDA.
RUN PIP_CONFIG_FILE=/build/torch.conf python3 -m pip --python /opt/trainer/bin/python install \
      --no-deps --require-hashes --only-binary :all: -r /build/torch.txt
RUN python3 -m pip --python /opt/trainer/bin/python install \
      --no-deps --require-hashes --only-binary :all: -r /build/requirements.txt
# newsbert itself is the base's, started with this environment's Python.
COPY --from=base /opt/newsbert/bin/newsbert /build/newsbert
RUN sed '1s,.*,#!/opt/trainer/bin/python,' /build/newsbert > /opt/trainer/bin/newsbert && chmod 755 /opt/trainer/bin/newsbert \
 && sed s,packages,newsbert, "$(echo /opt/trainer/lib/python*/site-packages)/packages.pth" \
      > "$(echo /opt/trainer/lib/python*/site-packages)/newsbert.pth"

FROM ${BASE_IMAGE}
COPY --from=build /opt/trainer /opt/trainer
# Any user may train, as whoever owns the files that are mounted: caches go where anybody may write.
ENV PATH=/opt/trainer/bin:$PATH MPLCONFIGDIR=/tmp/matplotlib HOME=/tmp USER=newsbert
# `mlflow run` gives the whole command line, `newsbert` included.
ENTRYPOINT []
CMD ["newsbert", "--help"]
