#!/bin/sh
# Mutation testing of the decision types, package by package, with their fast tests:
# tests/mutants.sh [PACKAGE…], by default all. Works on a copy of the tree. The lists of caught and
# missed mutants go to target/mutants/. Fails if a mutant is missed that docs/mutation-testing.md
# does not explain.
set -eu
cd "$(dirname "$0")/.."
cargo mutants --version >/dev/null 2>&1 || {
    echo "cargo-mutants is not installed: cargo install cargo-mutants --locked" >&2
    exit 1
}
[ $# -gt 0 ] || set -- palisade-resilience palisade-orders palisade-products palisade-gateway palisade-runtime palisade-auth
export CARGO_INCREMENTAL=1 # each mutant compiles one package again
status=0
for package in "$@"; do
    case $package in
    palisade-orders) tests="--lib --test saga_properties --test saga_simulation" ;;
    *) tests="--lib" ;;
    esac
    mkdir -p target/mutants/"$package"
    # shellcheck disable=SC2086 # a list of arguments
    cargo mutants --package "$package" --output target/mutants/"$package" --jobs "${JOBS:-2}" -- $tests || case $? in
        2 | 3) ;; # missed, timed out
        *) exit 1 ;;
    esac
    while read -r mutant; do
        # Without its position, which changes with every edit of the file.
        if ! grep -qF -- "- \`${mutant%%:*}\`: \`${mutant#*: }\`:" docs/mutation-testing.md; then
            echo "missed: $mutant" >&2
            status=1
        fi
    done <target/mutants/"$package"/mutants.out/missed.txt
done
exit $status
