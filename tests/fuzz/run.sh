#!/bin/sh
# Runs fuzz targets with libFuzzer: tests/fuzz/run.sh SECONDS [TARGET…], by default all. Inputs with new
# coverage go to target/fuzz/corpus/, failing ones to target/fuzz/failures/. Prints the number of
# executions of each target.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(ls tests/fuzz/corpus)

# Coverage for libFuzzer, as cargo-fuzz sets it. `--target` keeps the flags from build scripts.
coverage="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage="$coverage -Cllvm-args=-sanitizer-coverage-$option"
done
host=$(rustc -vV | sed -n 's/^host: //p')
built=$(RUSTFLAGS="--cfg fuzzing $coverage" cargo test --locked --profile fuzz --target "$host" --target-dir target/fuzz/build \
    --package palisade-fuzz --features libfuzzer --test libfuzzer --no-run --message-format json-render-diagnostics)
program=$(echo "$built" | sed -n 's/.*"name":"libfuzzer".*"executable":"\([^"]*\)".*/\1/p' | tail -1)

mkdir -p target/fuzz/failures
status=0
for target in "$@"; do
    found=target/fuzz/corpus/$target
    mkdir -p "$found"
    log=target/fuzz/$target.log
    if ! FUZZ_TARGET=$target "$program" -max_total_time="$seconds" -max_len=1024 -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix=target/fuzz/failures/"$target"- "$found" tests/fuzz/corpus/"$target" >"$log" 2>&1; then
        tail -30 "$log"
        status=1
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions"
done
exit $status
