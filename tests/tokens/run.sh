#!/bin/sh
# `make tokens`: installs the pinned original and holds our tokenizer against it.
set -eu

build=$(cd "$1" && pwd)
cd "$(dirname "$0")"
npm ci --silent --no-audit --no-fund
exec node equality.mjs "$build/tests/tokens/driver"
