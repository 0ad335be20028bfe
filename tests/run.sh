#!/bin/sh
# Runs suites and counts: tests/run.sh BUILD unit|integration...; the last line is `N passed, N failed`.
set -u

build=$1
shift
passed=0
failed=0

run_unit() {
  for test in "$build"/tests/unit/test_*; do
    case "${test##*/}" in *.*) continue ;; esac # objects and logs lie beside the programs
    log=$test.log
    if timeout 120 "$test" >"$log" 2>&1; then status=0; else status=$?; fi
    ok=$(grep -c '^\[       OK \]' "$log")
    bad=$(sed -n 's/^ *\([0-9][0-9]*\) FAILED TEST(S)$/\1/p' "$log" | tail -n 1)
    bad=${bad:-0}
    # A test program that died reports no failure of its own.
    [ "$status" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    passed=$((passed + ok))
    failed=$((failed + bad))
    printf '%-28s %4d passed %s\n' "$(basename "$test")" "$ok" "$([ "$bad" -eq 0 ] || echo "$bad FAILED")"
    [ "$bad" -eq 0 ] || tail -n 40 "$log"
  done
}

run_integration() {
  log=$build/tests/integration.log
  mkdir -p "$build/tests"
  XROUTER_BUILD=$build /usr/bin/python3 -m pytest -q -n "${XROUTER_JOBS:-4}" -p no:cacheprovider \
    ${XROUTER_TESTS:-tests/integration} >"$log" 2>&1
  status=$?
  tail -n "$([ $status -eq 0 ] && echo 3 || echo 120)" "$log"
  ok=$(sed -n 's/.*[^0-9]*\b\([0-9][0-9]*\) passed.*/\1/p' "$log" | tail -n 1)
  bad=$(sed -n 's/.*\b\([0-9][0-9]*\) failed.*/\1/p' "$log" | tail -n 1)
  errors=$(sed -n 's/.*\b\([0-9][0-9]*\) errors\{0,1\}.*/\1/p' "$log" | tail -n 1)
  bad=$((${bad:-0} + ${errors:-0}))
  [ "$status" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
  passed=$((passed + ${ok:-0}))
  failed=$((failed + bad))
}

for suite in "$@"; do
  "run_$suite"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
