#!/bin/sh
# `make clients`: installs the pinned npm packages, starts a private gateway over HTTPS and runs the
# clients against it.
set -eu

build=$(cd "$1" && pwd)
cd "$(dirname "$0")"
npm ci --silent --no-audit --no-fund
exec /usr/bin/python3 gateway.py "$build" node --test --test-reporter=tap openai.test.mjs json.test.mjs
