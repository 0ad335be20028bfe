#!/bin/sh
# Installs the Debian packages of a group, only those that are missing (then it needs the network
# and root or sudo; otherwise it touches nothing).
set -eu

build="gcc libc6-dev libmicrohttpd-dev libcurl4-openssl-dev libsqlite3-dev libcjson-dev libssl-dev \
  openssl curl ca-certificates"
case "$1" in
build) packages=$build ;;
test) packages="libcmocka-dev python3 python3-pytest python3-pytest-xdist openssl curl" ;;
lint) packages="clang-format-14 clang-tidy-14 cppcheck gawk" ;;
fuzz) packages="clang-14 libclang-rt-14-dev" ;;
bench) packages="nginx-light wrk python3" ;;
clients) packages="nodejs npm" ;;
coverage) packages="lcov libcmocka-dev" ;;
*)
  echo "deps.sh: unknown group $1" >&2
  exit 2
  ;;
esac

missing=
for package in $packages; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  case "$status" in
  *" installed") ;;
  *)
    # A tool of the same name that is there already will do (a node of one's own).
    case "$package" in
    nodejs) command -v node >/dev/null 2>&1 && continue ;;
    npm) command -v npm >/dev/null 2>&1 && continue ;;
    esac
    missing="$missing $package"
    ;;
  esac
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null 2>&1 || {
    echo "Missing packages:$missing" >&2
    echo "Install them as root: apt-get install$missing" >&2
    exit 1
  }
  sudo=sudo
fi
echo "Installing Debian packages:$missing"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
# shellcheck disable=SC2086  # the list is meant to be split
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
