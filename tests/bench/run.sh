#!/bin/sh
# `make bench`: see tests/bench/bench.py. BENCH_SECONDS and BENCH_ROUNDS shorten or lengthen it.
set -eu
"$1/tests/bench/reserve"
exec /usr/bin/python3 "$(dirname "$0")/bench.py" "$1"
