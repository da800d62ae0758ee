# Convoy's image, and with `--target demo-agent` that of the demo's agent. Needs no BuildKit.

# The same Debian as below, whose C library is the one that the programs will find.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# Both programs in one build, since they share nearly all of it. Without line tables, which are most of their size.
RUN CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    cargo build --release --locked --package convoy --package demo-agent \
 && install -D --target-directory /out target/release/convoy target/release/demo-agent \
 && rm -rf target

FROM debian:bookworm-slim AS demo-agent
COPY --from=build /out/demo-agent /usr/local/bin/
USER 65532:65532
EXPOSE 8080
ENV AGENT_LISTEN=0.0.0.0:8080
ENTRYPOINT ["demo-agent"]

FROM debian:bookworm-slim AS convoy
COPY --from=build /out/convoy /usr/local/bin/
RUN install --directory --owner 65532 --group 65532 --mode 0700 /data
USER 65532:65532
VOLUME /data
EXPOSE 7070 7071 7080
ENV CONVOY_HTTP_ADDRESS=0.0.0.0:7070 CONVOY_GRPC_ADDRESS=0.0.0.0:7071 CONVOY_XDS_ADDRESS=0.0.0.0:7080 \
    CONVOY_DATA_DIR=/data
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s CMD ["convoy", "get", "services"]
ENTRYPOINT ["convoy"]
CMD ["serve"]
