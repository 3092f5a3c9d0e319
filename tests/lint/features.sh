#!/bin/sh
# Checks palisade-resilience without features, with each alone, and with the defaults, and each
# package with only the features that it asks for.
set -eu
cd "$(dirname "$0")/../.."
manifest=middleware/resilience/Cargo.toml
features=$(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z-]*\) = .*/\1/p' "$manifest")
for feature in "" $features; do
    cargo clippy --locked --quiet --package palisade-resilience --no-default-features --features "$feature" -- -D warnings ||
        { echo "palisade-resilience does not build with the features \"$feature\" alone" >&2; exit 1; }
done
for package in $(cargo tree --locked --workspace --depth 0 --prefix none | awk 'NF { print $1 }' | sort -u); do
    cargo check --locked --quiet --package "$package" ||
        { echo "$package does not build alone" >&2; exit 1; }
done
