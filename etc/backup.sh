#!/bin/sh
# Makes a backup with a dated name and removes old ones.
#   backup.sh DIR [KEEP [DAYS]]
# The KEEP newest (14) always stay; older ones go once they are more than DAYS days old (30). Nothing
# is removed unless the new backup has been made and checked. XROUTERCTL and XROUTER_CONFIG may
# name another program and configuration. Exit status: xrouterctl's, or 2 for wrong arguments.
set -eu

dir=${1:?usage: backup.sh DIR [KEEP [DAYS]]}
keep=${2:-14}
days=${3:-30}
ctl=${XROUTERCTL:-xrouterctl}

for number in "$keep" "$days"; do
  case $number in
  '' | *[!0-9]*)
    echo "backup.sh: \"$number\" is no whole number" >&2
    exit 2
    ;;
  esac
done
if [ "$keep" -lt 1 ]; then
  echo "backup.sh: at least one backup must be kept" >&2
  exit 2
fi

cd "$dir"
name=xrouter-$(date -u +%Y%m%dT%H%M%SZ).db
"$ctl" backup "$PWD/$name"
[ -s "$name" ] && [ -s "$name.key.secret" ]

# Names sort by time. What is not called like a backup of ours is left alone.
ls | grep -E '^xrouter-[0-9]{8}T[0-9]{6}Z\.db$' | sort -r | tail -n "+$((keep + 1))" |
  while read -r old; do
    if [ -n "$(find "$old" -maxdepth 0 -mtime "+$days")" ]; then
      rm -f "$old" "$old.key.secret"
      echo "removed $old"
    fi
  done
