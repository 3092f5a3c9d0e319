#!/bin/sh
# Installs what the tests need beside Rust and a C compiler: PostgreSQL, and a MongoDB-compatible server built into .tools/.
# A second run finds everything there and does nothing. Only root installs Debian packages; others are told which to ask for.
set -eu
cd "$(dirname "$0")/.."

mongo=secantus-mdb
mongo_version=0.5.3-beta.193 # MongoDB 8.2 on the wire; GPL-2.0-only, so a process of its own and never linked

has_postgres() {
    command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

has_mongo() {
    [ -x .tools/bin/secantusd-rs ] && grep -q "\"$mongo $mongo_version " .tools/.crates.toml
}

missing=
has_postgres || missing="$missing postgresql"
if ! has_mongo; then
    command -v cmake >/dev/null || missing="$missing cmake"
    command -v c++ >/dev/null || missing="$missing g++"
fi

if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "The tests need these packages (Debian names):$missing" >&2
        echo "Install them, then run this again; on Debian: sudo apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # one word for each package
    apt-get install -y -qq --no-install-recommends $missing
fi

if ! has_mongo; then
    echo "Building $mongo $mongo_version into .tools/ (5 minutes, once) …"
    # Built beside the workspace's own target directory, with nobody's flags.
    unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
    cargo install "$mongo" --version "$mongo_version" --locked --ignore-rust-version --root .tools
fi
