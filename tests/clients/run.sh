#!/bin/sh
# `make clients`: installs the pinned npm packages, starts a private gateway over HTTPS and runs the
# clients against it.
set -eu

build=$(cd "$1" && pwd)
cd "$(dirname "$0")"
npm ci --silent --no-audit --no-fund
# The kills come last and alone: the others' clients do not retry.
exec /usr/bin/python3 gateway.py "$build" sh -ec '
  node --test --test-reporter=tap openai.test.mjs json.test.mjs
  node --test --test-reporter=tap kills.test.mjs'
