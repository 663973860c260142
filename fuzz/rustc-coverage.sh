#!/bin/sh
# As RUSTC_WORKSPACE_WRAPPER: compiles this workspace's crates with libFuzzer's coverage counters, and with overflow checks and assertions.
rustc=$1
shift
exec "$rustc" "$@" --cfg fuzzing -Coverflow-checks=on -Cdebug-assertions=on -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
