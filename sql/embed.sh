#!/bin/sh
# Turns the migrations into rows of a C table: {number, "name", "up text", "down text"}.
#   sh sql/embed.sh sql/*.sql >build/usage/migrations.inc
# Files are NNNN_name.up.sql, each with its NNNN_name.down.sql beside it, numbered from 1 without gaps.
set -eu

quote() {
    awk '{ gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); printf "     \"%s\\n\"\n", $0 }' "$1"
}

next=1
for up in "$@"; do
    case $up in
    *.up.sql) ;;
    *.down.sql) continue ;;
    *) echo "embed.sh: $up: not NNNN_name.up.sql or NNNN_name.down.sql" >&2 && exit 1 ;;
    esac
    down=${up%.up.sql}.down.sql
    base=$(basename "$up" .up.sql)
    digits=${base%%_*}
    name=${base#*_}
    number=$(printf '%s\n' "$digits" | sed 's/^0*//')
    if [ "$number" != "$next" ]; then
        echo "embed.sh: $up: expected number $next" >&2
        exit 1
    fi
    if [ ! -s "$up" ] || [ ! -s "$down" ]; then
        echo "embed.sh: $up and $down must both exist and not be empty" >&2
        exit 1
    fi
    printf '    {%s, "%s",\n' "$number" "$name"
    quote "$up"
    printf '     ,\n'
    quote "$down"
    printf '    },\n'
    next=$((next + 1))
done
