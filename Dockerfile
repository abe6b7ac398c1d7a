# The image of the operator, of the drain gate and of the simulated model server: docker build -t tailrace:0.1.0 .
# Any base will do that has Python 3.11 or newer with venv as `python3`. SOURCE_DATE_EPOCH makes equal images of equal
# sources. Behind an index of your own give PIP_INDEX_URL, or PIP_FIND_LINKS and PIP_NO_INDEX, by --build-arg.
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG PIP_INDEX_URL PIP_FIND_LINKS PIP_NO_INDEX
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements/runtime.txt requirements/build.txt requirements/
# Two environments: what builds the package does not end up in the image, nor does pip. Byte code is made here and never
# asks for its sources' times: the root is read-only, and a start must not compile.
RUN python3 -m venv /build && /build/bin/pip install --quiet --require-hashes -r requirements/build.txt \
 && python3 -m venv --without-pip /opt/tailrace \
 && /build/bin/pip --python /opt/tailrace/bin/python install --quiet --no-compile --only-binary :all: \
      --require-hashes -r requirements/runtime.txt \
 && echo /opt/tailrace/app > "$(echo /opt/tailrace/lib/python3*/site-packages)/app.pth" \
 && /opt/tailrace/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/tailrace/lib \
 && find /opt/tailrace -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +
COPY . .
# The package has a layer of its own: the dependencies' is the same from release to release.
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
 && /build/bin/pip --python /opt/tailrace/bin/python install --quiet --no-compile --no-deps --no-index \
      --target /app /wheel/*.whl \
 && PYTHONPATH=/app /opt/tailrace/bin/python requirements/sbom.py requirements/runtime.txt /app/sbom.cdx.json \
 && /opt/tailrace/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /app -p /opt/tailrace/app /app \
 && find /app -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Tailrace" \
      org.opencontainers.image.description="Kubernetes operator and load balancer for LLM inference servers" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/tailrace /opt/tailrace
COPY --from=build /app /opt/tailrace/app
ENV PATH=/opt/tailrace/app/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Nobody's number, as the chart has it. Nothing is written but /tmp.
USER 65532:65532
WORKDIR /
EXPOSE 8080 8081 9090
ENTRYPOINT ["tailrace"]
