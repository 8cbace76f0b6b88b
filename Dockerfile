# flowtel as one static binary in an empty image: docker build -t flowtel:local .
#
# musl, not glibc: a static glibc looks host names up through libraries that an empty image does not have; musl brings its
# own resolver. The eBPF object is a checked-in product of the repository, so nothing here needs LLVM or nightly Rust.

FROM rust:1.95-alpine AS build
# ring, the TLS library's arithmetic, compiles C.
RUN apk add --no-cache musl-dev gcc ca-certificates
WORKDIR /src
COPY . .
# The host's own target is *-linux-musl here, on x86-64 and arm64 alike, and static by default.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package flowtel --bin flowtel \
    && install -D target/release/flowtel /image/flowtel \
    && mkdir -p /image/etc/ssl/certs \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
LABEL org.opencontainers.image.title="flowtel" \
      org.opencontainers.image.description="Watches TCP connections begin in the Linux kernel and ships each as an OpenTelemetry log record" \
      org.opencontainers.image.source="https://github.com/flowtel/flowtel" \
      org.opencontainers.image.licenses="Apache-2.0 AND (MIT OR GPL-2.0-only)"
COPY --from=build /image/ /
COPY LICENSE LICENSE-MIT /licenses/
# No USER: container engines hand added capabilities only to root, and flowtel needs CAP_BPF, CAP_NET_ADMIN and
# CAP_PERFMON to load and attach its programs. Run it with --cap-drop ALL and these three: docker-compose.yml shows how.
ENTRYPOINT ["/flowtel"]
