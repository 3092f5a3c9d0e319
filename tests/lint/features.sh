#!/bin/sh
# Checks palisade-resilience without features, with each alone, and with the defaults.
set -eu
cd "$(dirname "$0")/../.."
manifest=middleware/resilience/Cargo.toml
features=$(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z-]*\) = .*/\1/p' "$manifest")
for feature in "" $features; do
    cargo clippy --locked --quiet --package palisade-resilience --no-default-features --features "$feature" -- -D warnings ||
        { echo "palisade-resilience does not build with the features \"$feature\" alone" >&2; exit 1; }
done
