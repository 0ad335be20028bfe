#!/bin/sh
# `make fuzz`: each target for a bounded time, from its seeds; what it finds stays in BUILD.
# tests/fuzz/run.sh BUILD SECONDS
set -u

build=$1
seconds=$2
passed=0
failed=0
for source in tests/fuzz/fuzz_*.c; do
  name=$(basename "$source" .c)
  short=${name#fuzz_}
  corpus=$build/corpus/$short
  mkdir -p "$corpus"
  seeds=
  [ ! -d "tests/fuzz/seeds/$short" ] || seeds=tests/fuzz/seeds/$short
  dictionary=
  [ ! -f "tests/fuzz/$short.dict" ] || dictionary=-dict=tests/fuzz/$short.dict
  log=$build/$name.log
  # shellcheck disable=SC2086  # both may be empty
  if "$build/tests/fuzz/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=65536 \
    -artifact_prefix="$build/$name-" -print_final_stats=1 $dictionary "$corpus" $seeds >"$log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf '%-24s %10s runs, no finding\n' "$name" "$runs"
    passed=$((passed + 1))
  else
    echo "$name FAILED; the input is kept in $build"
    tail -n 30 "$log"
    failed=$((failed + 1))
  fi
done
echo "fuzz: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
