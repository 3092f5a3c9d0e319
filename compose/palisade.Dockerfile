# Command-line tools for keys and tokens, with a shell.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release --package palisade && cp target/release/palisade /

FROM debian:12-slim
COPY --from=build /palisade /usr/local/bin/
COPY compose/keys.sh /usr/local/bin/
# The user id of the other images. A new volume inherits the owner of its mount point.
RUN install -d -o 65532 -g 65532 /keys /keys/gateway /keys/orders /keys/operator /keys/public /keys/probe
USER 65532:65532
