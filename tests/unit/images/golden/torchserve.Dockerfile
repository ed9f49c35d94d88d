# The serving image: the base image, TorchServe with a Java runtime from PyPI, and one model archive. The archive is
# made where training happens, by MLflow's deployment interface; and what ships must give the model's own answers.
ARG BASE_IMAGE
ARG TRAINER_IMAGE
ARG SHIPPED_IMAGE
ARG ROOT_IMAGE=python:3.11-slim-bookworm

FROM ${ROOT_IMAGE} AS build
ARG STAGE=build
LABEL newsbert.stage=$STAGE
COPY pip.conf serving.txt packing.txt sbom.txt /build/
ENV PIP_CONFIG_FILE=/build/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m pip install --no-deps --require-hashes --only-binary :all: --target /opt/serving -r /build/serving.txt \
 && python3 -m pip install --no-deps --require-hashes --only-binary :all: --target /opt/packing -r /build/packing.txt \
 && python3 -m pip install --no-deps --require-hashes --only-binary :all: --target /opt/sbom -r /build/sbom.txt

# Start TorchServe on loopback, create the deployment from the MLflow model with our target of the plugin, stop.
FROM ${TRAINER_IMAGE} AS archive
COPY --from=build /opt/serving /opt/serving
COPY --from=build /opt/packing /opt/packing
COPY model /opt/model
ARG MODEL
ARG RUNTIME
RUN PYTHONPATH=/opt/serving:/opt/packing python -m newsbert.images.programs.package /opt/model /tmp/archive "$MODEL" "$RUNTIME" \
 && python -m newsbert.serving.torchserve.jvm /opt/serving/ts/frontend /tmp/native

FROM ${SHIPPED_IMAGE} AS shipped
COPY --from=build /opt/serving /opt/serving
COPY --from=archive /tmp/native /opt/serving/ts/frontend/native
COPY --from=archive /tmp/archive /opt/model
ENV PYTHONPATH=/opt/serving NEWSBERT_RUN_DIR=/tmp/newsbert

FROM shipped AS sbom
COPY --from=build /opt/sbom /opt/sbom
RUN PYTHONPATH=/opt/serving:/opt/sbom python -m newsbert.images.programs.sbom /opt/model/news_classification.mar /tmp/bom.cdx.json

FROM shipped
COPY --from=sbom /tmp/bom.cdx.json /opt/model/bom.cdx.json
COPY entrypoint.sh /opt/entrypoint.sh
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-m", "newsbert.serving.probe"]
ENTRYPOINT ["sh", "/opt/entrypoint.sh", "/opt/model/news_classification.mar"]
CMD []
# Started as it will be, it must answer the golden texts as PyTorch did; else there is no image.
RUN ["python", "-m", "newsbert.images.programs.verify", "newsbert", "serve", "locally", "/opt/model/news_classification.mar", "--host", "0.0.0.0", "--port", "8080"]
