# What training and serving share: Python, the pinned requirements, newsbert itself.
# newsbert comes from the build context, never from an index; of all else pip takes only files of the hashes that it is
# given. pip's options (an index with a password in its URL, say) are in the first stage only, of which nothing but the
# installed packages is taken.
ARG ROOT_IMAGE=python:3.11-slim-bookworm

FROM ${ROOT_IMAGE} AS build
ARG STAGE=build
LABEL newsbert.stage=$STAGE
COPY pip.conf requirements.txt gpu.txt /build/
ENV PIP_CONFIG_FILE=/build/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/packages \
 && python3 -m pip --python /opt/packages/bin/python install \
      --no-deps --require-hashes --only-binary :all: -r /build/requirements.txt \
 && find /opt/packages/lib -depth -type d \( -name tests -o -path '*/onnxruntime/transformers/models' \
      -o -path '*/onnxruntime/tools' -o -path '*/numpy/distutils' \) -exec rm -r {} + \
 && rm -f /opt/packages/lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so.*
RUN python3 -m pip --python /opt/packages/bin/python install --no-deps --only-binary :all: --require-hashes -r /build/gpu.txt

FROM ${ROOT_IMAGE}
RUN groupadd --gid 10001 newsbert \
 && useradd --uid 10001 --gid newsbert --create-home --home-dir /home/newsbert newsbert
# The root image has no compiled modules of Python's own library, and a read-only container cannot write them: every
# start would compile the library.
RUN python3 -m compileall -q -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|distutils|pydoc_data)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/packages /opt/packages
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
# An environment of its own, which sees the packages: they are a layer that stays when newsbert changes.
COPY *.whl /opt/newsbert/
RUN python3 -m venv --without-pip /opt/newsbert \
 && echo /opt/packages/lib/python*/site-packages > "$(echo /opt/newsbert/lib/python*/site-packages)/packages.pth" \
 && python3 -m pip --isolated --python /opt/newsbert/bin/python install --no-cache-dir --disable-pip-version-check \
      --root-user-action ignore --no-index --no-deps /opt/newsbert/*.whl
ENV PATH=/opt/newsbert/bin:$PATH
WORKDIR /home/newsbert
USER newsbert
ENTRYPOINT ["newsbert"]
CMD ["--help"]
