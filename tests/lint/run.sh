#!/bin/sh
# `make lint`: one line a check, details only of what failed.
#   tests/lint/run.sh [format] [tidy] [cppcheck] [layers] [money]     (none = all)
# LINT_FILES restricts it to those files (the pre-commit hook), BUILD says where generated files are.
set -u
cd "$(dirname "$0")/../.."

build=${BUILD:-build}
details=${LINT_DETAILS:-80}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM

if [ -n "${LINT_FILES+set}" ]; then
  sources=$(printf '%s\n' $LINT_FILES | grep '\.[ch]$')
else
  sources=$(find common usage providers router gateway tests -name node_modules -prune -o -name '*.[ch]' -print | sort)
fi
units=$(printf '%s\n' "$sources" | grep '\.c$')
# Money is in the product; the simulator and the tests only look at it.
product=$(printf '%s\n' "$sources" | grep -v '^tests/')

# Debian's versioned tool, or the machine's own.
tool() {
  command -v "$1-14" || command -v "$1" || { echo "$1 is not installed" >&2; return 1; }
}

check_format() {
  formatter=$(tool clang-format) || return 1
  wrong=$("$formatter" --dry-run -Werror $sources 2>&1 | sed -n 's/^\([^: ]*\):[0-9]*:[0-9]*: error.*/\1/p' | uniq)
  [ -n "$wrong" ] || return 0
  printf '%s\n' $wrong
  echo "to mend them: $(basename "$formatter") -i FILE..."
  return 1
}

check_tidy() {
  [ -n "$units" ] || return 0
  tidy=$(tool clang-tidy) || return 1
  # Two at a time. One file a process: with several, version 14 finds uninitialized va_lists where
  # there are none. stderr only counts the warnings in system headers: what is wrong in a file, even
  # a broken one, goes to stdout. The analyzer's path to a finding is left out; LINT_FILES=FILE
  # LINT_PATHS=1 shows it.
  # shellcheck disable=SC2016  # the inner shell's arguments
  found=$(
    printf '%s\n' $units |
      BUILD="$build" TIDY="$tidy" xargs -P 2 -n 1 sh -c '"$TIDY" --quiet "$@" -- -std=gnu11 -I. \
        -I"$BUILD" -D_GNU_SOURCE -DXROUTER_VERSION="\"lint\"" 2>/dev/null' tidy |
      sed "s|$PWD/||" |
      if [ -n "${LINT_PATHS:-}" ]; then cat; else grep -E ': (warning|error): ' | sort -u; fi
  )
  [ -n "$found" ] || return 0
  printf '%s\n' "$found"
  return 1
}

check_cppcheck() {
  [ -n "$units" ] || return 0
  cppcheck=$(tool cppcheck) || return 1
  "$cppcheck" --quiet -j 2 --std=c11 --enable=warning,performance,portability --inline-suppr \
    --error-exitcode=1 --suppressions-list=tests/lint/cppcheck.txt \
    --library=tests/lint/cppcheck.cfg -I. -I"$build" -D_GNU_SOURCE \
    -DXROUTER_VERSION='"lint"' $units
}

check_layers() {
  tests/lint/layers $sources
}

check_money() {
  tests/lint/money $product
}

failed=0
for check in ${*:-format layers money cppcheck tidy}; do
  case "$check" in
  format | tidy | cppcheck | layers | money) ;;
  *)
    echo "lint: there is no check \"$check\"" >&2
    exit 2
    ;;
  esac
  began=$(date +%s)
  if [ -z "$sources" ] || "check_$check" >"$log" 2>&1; then
    printf 'lint: %-9s ok      %3d s\n' "$check" $(($(date +%s) - began))
  else
    printf 'lint: %-9s FAILED  %3d s\n' "$check" $(($(date +%s) - began))
    sed -e 's/^/  /' -e "${details}q" "$log"
    lines=$(wc -l <"$log")
    [ "$lines" -le "$details" ] || echo "  ... $((lines - details)) more lines (LINT_DETAILS=$lines)"
    failed=1
  fi
done
exit $failed
