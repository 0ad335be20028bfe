#!/bin/sh
# `make bench-tokens`: counting tokens, ours and the original in one run.
set -eu

build=$(cd "$1" && pwd)
cd "$(dirname "$0")"
exec node tokens.mjs "$build/tests/tokens/driver"
