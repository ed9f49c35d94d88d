# A team's tracking server: the base image, MLflow's server, and what that reaches databases and buckets with. What it
# keeps is in /data; credentials come when it runs, in its environment or as a mounted file; none is here.
ARG BASE_IMAGE
ARG ROOT_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base

FROM ${ROOT_IMAGE} AS build
ARG STAGE=build
LABEL newsbert.stage=$STAGE
COPY --from=base /opt/packages /opt/packages
COPY pip.conf requirements.txt /build/
ENV PIP_CONFIG_FILE=/build/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/tracking \
 && echo /opt/packages/lib/python*/site-packages > "$(echo /opt/tracking/lib/python*/site-packages)/packages.pth"
RUN python3 -m pip --python /opt/tracking/bin/python install \
      --no-deps --require-hashes --only-binary :all: -r /build/requirements.txt
# newsbert itself is the base's, started with this environment's Python.
COPY --from=base /opt/newsbert/bin/newsbert /build/newsbert
RUN sed '1s,.*,#!/opt/tracking/bin/python,' /build/newsbert > /opt/tracking/bin/newsbert && chmod 755 /opt/tracking/bin/newsbert \
 && sed s,packages,newsbert, "$(echo /opt/tracking/lib/python*/site-packages)/packages.pth" \
      > "$(echo /opt/tracking/lib/python*/site-packages)/newsbert.pth" \
 && install --directory --mode 700 --owner 10001 --group 10001 /build/data

FROM ${BASE_IMAGE}
COPY --from=build /opt/tracking /opt/tracking
COPY --from=build --chown=10001:10001 /build/data /data
ENV PATH=/opt/tracking/bin:$PATH NEWSBERT_TRACKING_DIRECTORY=/data NEWSBERT_TRACKING_HOST=0.0.0.0
VOLUME /data
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["newsbert", "tracking", "status"]
ENTRYPOINT ["newsbert", "tracking", "up"]
CMD []
