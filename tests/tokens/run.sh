#!/bin/sh
# `make tokens`: holds our tokenizer against the pinned original. TEXTS: all of the texts (minutes)
# or some of each kind (seconds).
#   tests/tokens/run.sh BUILD [all|some]
set -eu

build=$(cd "$1" && pwd)
cd "$(dirname "$0")"
exec node equality.mjs "$build/tests/tokens/driver" "${2:-all}"
