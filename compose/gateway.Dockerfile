# The gateway: HTTP on 3000, admin on 9464.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# Revision label of the metric `build_info`. `make up` passes the commit.
ARG REVISION=unknown
ENV PALISADE_REVISION=$REVISION
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --profile dist --package palisade-gateway && cp target/dist/palisade-gateway /

# Distroless: the program, its C library, a non-root user. No shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /palisade-gateway /
EXPOSE 3000 9464
# The program checks its own admin port (GET /readyz): the image has no other HTTP client.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["/palisade-gateway", "--health-check"]
ENTRYPOINT ["/palisade-gateway"]
