# What training and serving share: Python, the pinned requirements, newsbert itself.
# newsbert comes from the build context, never from an index. pip's options (an index with a password in its URL, say)
# are in the first stage only, of which nothing but the installed packages is taken.
ARG ROOT_IMAGE=python:3.11-slim-bookworm

FROM ${ROOT_IMAGE} AS build
COPY pip.conf requirements.txt *.whl /build/
ENV PIP_CONFIG_FILE=/build/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/newsbert \
 && python3 -m pip --python /opt/newsbert/bin/python install --no-deps -r /build/requirements.txt /build/*.whl

FROM ${ROOT_IMAGE}
COPY --from=build /opt/newsbert /opt/newsbert
ENV PATH=/opt/newsbert/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
RUN groupadd --gid 10001 newsbert \
 && useradd --uid 10001 --gid newsbert --create-home --home-dir /home/newsbert newsbert
WORKDIR /home/newsbert
USER newsbert
ENTRYPOINT ["newsbert"]
CMD ["--help"]
