# The orders service: gRPC on 5001, admin on 9466.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# What `build_info` says of this build; `make up` gives the commit.
ARG REVISION=unknown
ENV PALISADE_REVISION=$REVISION
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --profile dist --package palisade-orders && cp target/dist/palisade-orders /

# No shell, no package manager: the program, its C library, and a user that is not root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /palisade-orders /
EXPOSE 5001 9466
# The program asks its own admin port whether it is ready (GET /readyz): nothing else in here could.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["/palisade-orders", "--health-check"]
ENTRYPOINT ["/palisade-orders"]
