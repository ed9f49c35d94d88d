# The serving image with the native server: the base image, the server's packages, and one model. What ships must give
# the model's own answers.
ARG SHIPPED_IMAGE
ARG ROOT_IMAGE=python:3.11-slim-bookworm

FROM ${ROOT_IMAGE} AS build
ARG STAGE=build
LABEL newsbert.stage=$STAGE
COPY pip.conf serving.txt sbom.txt /build/
ENV PIP_CONFIG_FILE=/build/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m pip install --no-deps --require-hashes --only-binary :all: --target /opt/serving -r /build/serving.txt \
 && python3 -m pip install --no-deps --require-hashes --only-binary :all: --target /opt/sbom -r /build/sbom.txt
# BUNDLE

FROM ${SHIPPED_IMAGE} AS shipped
COPY --from=build /opt/serving /opt/serving
COPY model /opt/model
ARG MODEL
ARG RUNTIME
ENV PYTHONPATH=/opt/serving NEWSBERT_RUN_DIR=/tmp/newsbert NEWSBERT_SERVER=native \
    NEWSBERT_SERVE_NAME="$MODEL" NEWSBERT_SERVE_RUNTIME="$RUNTIME"

FROM shipped AS sbom
COPY --from=build /opt/sbom /opt/sbom
RUN PYTHONPATH=/opt/serving:/opt/sbom python -m newsbert.images.programs.sbom /opt/model /tmp/bom.cdx.json

FROM shipped
COPY --from=sbom /tmp/bom.cdx.json /opt/model/bom.cdx.json
COPY entrypoint.sh /opt/entrypoint.sh
EXPOSE 8080
# The supervisor touches the file twice a second while all of its workers live and answer.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s \
  CMD ["sh", "-c", "test -n \"$(find \"$NEWSBERT_RUN_DIR/ready\" -newermt '-10 seconds' 2>/dev/null)\""]
ENTRYPOINT ["sh", "/opt/entrypoint.sh", "/opt/model"]
CMD []
# Started as it will be, it must answer the golden texts as PyTorch did; else there is no image.
RUN ["python", "-m", "newsbert.images.programs.verify", "newsbert", "serve", "locally", "/opt/model", "--host", "0.0.0.0", "--port", "8080"]
