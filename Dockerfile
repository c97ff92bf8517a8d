# hanmo as an image: hanmo-server, hanmo-worker, the command line and hanmo-gateway on Debian's slim base.
#
#   docker build -t hanmo .                        for the CPU
#   docker build -t hanmo:cuda --build-arg CUDA=1 . for NVIDIA GPUs, too
#   docker build -t hanmo:demo --target demo .     with the demo models in /models
#   docker run -p 8001:8001 -v FOLDER:/models:ro --read-only hanmo
#
# deploy/image/README.md has more: other builders, other bases, and the list of what is inside.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
ARG CUDA=0
WORKDIR /src
COPY scripts/setup scripts/
COPY scripts/requirements scripts/requirements
# Plain sh: images in the OCI format know no SHELL.
RUN set -eu -- --build-only; \
    if [ "$CUDA" = 1 ]; then set -- "$@" --cuda; fi; \
    scripts/setup "$@"; \
    mkdir /usr/lib/hanmo; \
    for name in torch nvidia; do \
      mv .deps/venv/lib/python3*/site-packages/$name /usr/lib/hanmo/; \
    done
COPY . .
RUN cmake --preset release -DHANMO_TESTS=OFF -DHANMO_BENCH=OFF \
      -DHANMO_TORCH_DIR=/usr/lib/hanmo/torch && \
    cmake --build build/release --target hanmo-server hanmo-worker hanmo hanmo-gateway && \
    strip build/release/bin/*
# What the worker loads of libtorch: no Python, no headers.
WORKDIR /usr/lib/hanmo
RUN set -eu; \
    mkdir -p /image/usr/bin /image/usr/lib/hanmo; \
    cp /src/build/release/bin/* /image/usr/bin/; \
    traces=$(echo /src/.deps/opentelemetry/usr/lib/*-linux-gnu); \
    mkdir -p "/image/usr/lib/${traces##*/}"; \
    cp -P "$traces"/libopentelemetry_*.so* "/image/usr/lib/${traces##*/}/"; \
    # Unpacked, not installed: told where scanners look for such packages.
    mkdir -p /image/var/lib/dpkg/status.d; \
    dpkg-deb --field /src/.deps/opentelemetry/apt/opentelemetry-cpp_*.deb \
      >/image/var/lib/dpkg/status.d/opentelemetry-cpp; \
    wanted='libtorch_cpu|libc10\.so|libgomp|libcudart|libcupti'; \
    if [ "$CUDA" = 1 ]; then wanted='lib'; fi; \
    find torch/lib nvidia -regextype posix-extended -regex ".*/($wanted)[^/]*" \
      -name '*.so*' ! -name 'libtorch_python*' ! -name 'libshm*' \
      -exec cp --parents -t /image/usr/lib/hanmo {} +

FROM ${BASE} AS server
# The release of Debian pins the versions, its security updates included.
# hadolint ignore=DL3008
RUN apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      ca-certificates libgrpc++1.51 libprotobuf32 libspdlog1.10 libprometheus-cpp-pull1.0 \
      libpng16-16 libjpeg62-turbo libturbojpeg0 libwebp7 libwebpdemux2 libwebpmux3 \
      libyaml-cpp0.7 libre2-9 libcpp-httplib0.11 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /image /
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CUDA=0
LABEL org.opencontainers.image.title="hanmo" \
      org.opencontainers.image.description="gRPC server for Chinese text-to-image and text models" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      hanmo.cuda="$CUDA"
ENV HANMO_LISTEN=0.0.0.0:8001 HANMO_METRICS_LISTEN=0.0.0.0:8002 HANMO_MODEL_REPOSITORY=/models
EXPOSE 8001 8002
# What runs needs no name for its user, no home, and no writable folder.
USER 65532:65532
ENTRYPOINT ["hanmo-server"]
HEALTHCHECK --start-period=120s CMD ["hanmo", "health", "hanmo.v1.Models"]

FROM server AS demo
COPY models/taiyi-sd-tiny /models/taiyi-sd-tiny
COPY models/wenzhong-gpt2-tiny /models/wenzhong-gpt2-tiny

FROM server
