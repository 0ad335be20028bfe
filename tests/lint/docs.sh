#!/bin/sh
# `make docs`: writes what is rendered from tables into the manual. A unit test compares the two.
#   tests/lint/docs.sh BUILD
set -eu
cd "$(dirname "$0")/../.."

build=$1
manual=docs/configuration.md
fresh=$(mktemp)
trap 'rm -f "$fresh" "$fresh.new"' EXIT

"$build/xrouter" --describe-config markdown >"$fresh"
awk -v table="$fresh" '
/^<!-- options -->$/ {
  print
  while ((getline line < table) > 0)
    print line
  skip = 1
}
/^<!-- \/options -->$/ { skip = 0 }
!skip
' "$manual" >"$fresh.new"
cmp -s "$fresh.new" "$manual" || cat "$fresh.new" >"$manual" # keeps the file's mode
