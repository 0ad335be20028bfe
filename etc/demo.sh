#!/bin/sh
# `make run`: the gateway on a demo configuration, with llm-sim as its GigaChat, or with the real
# GigaChat when GIGACHAT_CREDENTIALS is set. State lives under var/; Ctrl-C stops everything.
set -eu

build=$1
http=${XROUTER_LISTEN_HTTP:-127.0.0.1:8080}
https=${XROUTER_LISTEN_HTTPS:-127.0.0.1:8443}
ops=${XROUTER_LISTEN_OPS:-127.0.0.1:9464}
sim_pid=
gateway_pid=

stop() {
  trap '' INT TERM
  [ -z "$gateway_pid" ] || kill -TERM "$gateway_pid" 2>/dev/null || true
  [ -z "$gateway_pid" ] || wait "$gateway_pid" 2>/dev/null || true
  [ -z "$sim_pid" ] || kill "$sim_pid" 2>/dev/null || true
  [ -z "$sim_pid" ] || wait "$sim_pid" 2>/dev/null || true
}

fail() {
  echo "make run: $1" >&2
  stop
  exit 1
}

umask 077
mkdir -p var/tls var/log
if [ ! -s var/tls/cert.pem ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj "/CN=localhost" -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" \
    -keyout var/tls/key.pem -out var/tls/cert.pem 2>/dev/null
fi

trap 'stop; exit 0' INT TERM
if [ -n "${GIGACHAT_CREDENTIALS:-}" ]; then
  upstream="GigaChat itself (GIGACHAT_CREDENTIALS is set)"
  base_url=${GIGACHAT_BASE_URL:-https://api.giga.chat}
  auth_url=${GIGACHAT_AUTH_URL:-https://ngw.devices.sberbank.ru:9443/api/v2/oauth}
  concurrent=1
else
  upstream="llm-sim, a simulated GigaChat (set GIGACHAT_CREDENTIALS for the real one)"
  mkfifo var/sim.$$ && exec 3<>var/sim.$$ && rm var/sim.$$
  setsid "$build/llm-sim" -c etc/llm-sim.json --listen 127.0.0.1:0 >&3 2>var/log/llm-sim.log 3>&- &
  sim_pid=$!
  read -r word address <&3
  [ "$word" = listening ] || fail "llm-sim did not start: see var/log/llm-sim.log"
  base_url=http://$address
  auth_url=$base_url/api/v2/oauth
  GIGACHAT_CREDENTIALS=ZGVtby1jbGllbnQ6ZGVtby1zZWNyZXQ= # demo-client:demo-secret
  export GIGACHAT_CREDENTIALS
  concurrent=64
fi
sed -e "s|@BASE_URL@|$base_url|" -e "s|@AUTH_URL@|$auth_url|" -e "s|@CONCURRENT@|$concurrent|" \
  -e "s|@SCOPE@|${GIGACHAT_SCOPE:-GIGACHAT_API_PERS}|" \
  -e "s|@CA_BUNDLE@|${GIGACHAT_CA_BUNDLE_FILE:-}|" \
  -e "s|@HTTP@|$http|" -e "s|@HTTPS@|$https|" -e "s|@OPS@|$ops|" etc/demo.json >var/xrouter.json

"$build/xrouter" -c var/xrouter.json &
gateway_pid=$!
tries=0
until curl -fsS -o /dev/null "http://$ops/ready" 2>/dev/null; do
  kill -0 "$gateway_pid" 2>/dev/null || fail "xrouter did not start; its reason is above or in var/log/error.log"
  tries=$((tries + 1))
  [ "$tries" -lt 150 ] || fail "xrouter is not ready after 15 s: see var/log/error.log"
  sleep 0.1
done
if [ ! -s var/demo.key ]; then
  "$build/xrouterctl" key create --name demo --json |
    sed -n 's/.*"key":"\(sk-xr-[A-Za-z0-9_-]*\)".*/\1/p' >var/demo.key
  [ -s var/demo.key ] || fail "the demo key could not be made"
fi

cat <<TXT

xrouter is running.
  upstream  $upstream
  HTTP      http://$http        HTTPS  https://$https (--cacert var/tls/cert.pem)
  ops       http://$ops/metrics  logs   var/log/access.log, var/log/error.log

Paste this into another terminal, in this directory; the answer streams:

  curl -N http://$http/v1/chat/completions -H "Authorization: Bearer \$(cat var/demo.key)" -H 'Content-Type: application/json' -d '{"model":"GigaChat","stream":true,"messages":[{"role":"user","content":"Hello! Tell me about Novosibirsk."}]}'

The same over HTTPS, in one piece:

  curl --cacert var/tls/cert.pem https://$https/v1/chat/completions -H "Authorization: Bearer \$(cat var/demo.key)" -H 'Content-Type: application/json' -d '{"model":"GigaChat","messages":[{"role":"user","content":"Hello!"}]}'

Then see it counted:

  $build/xrouterctl usage
  $build/xrouterctl stat --watch

Ctrl-C stops everything.
TXT
status=0
wait "$gateway_pid" || status=$?
gateway_pid=
stop
exit "$status"
