# The serving image: the base image, TorchServe with a Java runtime from PyPI, and one model archive.
ARG BASE_IMAGE
ARG ROOT_IMAGE=python:3.11-slim-bookworm

FROM ${ROOT_IMAGE} AS build
COPY pip.conf requirements.txt /build/
ENV PIP_CONFIG_FILE=/build/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m pip install --no-deps --target /opt/serving -r /build/requirements.txt
# TorchServe's worker asks whether an answer is a torch.Tensor and uses nothing else of torch.
COPY torch_standin.py /opt/serving/torch.py

FROM ${BASE_IMAGE}
COPY --from=build /opt/serving /opt/serving
ENV PYTHONPATH=/opt/serving
COPY news_classification.mar /opt/model/news_classification.mar
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["newsbert", "predict", "--url", "http://127.0.0.1:8080", "--json", "healthy?"]
ENTRYPOINT ["newsbert", "serve", "locally", "/opt/model/news_classification.mar", "--host", "0.0.0.0", "--port", "8080"]
CMD []
