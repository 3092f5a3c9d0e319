#!/bin/sh
# Rolling upgrade under load from another revision of this repository, by default the last one that is
# a day old, to the current tree.
set -eu
cd "$(dirname "$0")/.."
from=$(git rev-parse --verify --quiet "${1:-$(git rev-list -1 --before='1 day ago' HEAD)}^{commit}") ||
    { echo "usage: make upgrade FROM=<revision>" >&2; exit 2; }
tree=target/previous/$from
[ -e "$tree" ] || git worktree add --force --detach "$tree" "$from"
cargo build --workspace --bins --manifest-path "$tree/Cargo.toml" --target-dir "$tree/target"
cargo build --locked --workspace --bins
echo "upgrade from $(git log -1 --format='%h %s' "$from")"
PALISADE_PREVIOUS_PROGRAMS=$PWD/$tree/target/debug target/debug/replicas upgrade
