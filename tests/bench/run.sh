#!/bin/sh
# `make bench`: see tests/bench/bench.py. BENCH_SECONDS and BENCH_ROUNDS shorten or lengthen it.
set -eu
missed=0
"$1/tests/bench/reserve" || missed=1
"$1/tests/bench/limits" || missed=1
"$1/tests/bench/prompt" || missed=1
"$1/tests/bench/adapters" || missed=1
# A small ledger: its drain counts here, its reports in `make bench-ledger`.
"$1/tests/bench/ledger" "$1" 20000 400000 || missed=1
/usr/bin/python3 "$(dirname "$0")/bench.py" "$1" || missed=1
exit $missed
