#!/bin/sh
# Installs the programs of others that tests/gateway and tests/load run: curl, nginx, haproxy, headless Chromium,
# libfaketime, perf, Prometheus's promtool, and Python's `websockets` in a virtual environment under target/. Does
# nothing where they are there already.
set -eu
cd "$(dirname "$0")/../.."

# Pinned, so that the test means the same next year.
websockets=websockets==15.0.1
environment=target/test-clients

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=
nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || missing="$missing nginx"
haproxy=$(PATH=$PATH:/usr/sbin command -v haproxy) || missing="$missing haproxy"
promtool=$(command -v promtool) || missing="$missing prometheus"
command -v curl >/dev/null || missing="$missing curl"
command -v chromium >/dev/null || missing="$missing chromium"
command -v perf >/dev/null || missing="$missing linux-perf"
[ -e "$(echo /usr/lib/*/faketime/libfaketimeMT.so.1)" ] || missing="$missing libfaketime"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3 python3-venv"
if [ -n "$missing" ]; then
    as_root apt-get update -qq
    # Word splitting is wanted: one argument a package.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $missing >/dev/null
    # Debian starts what it installs, on port 80. The tests want the program and no service.
    if [ -z "$nginx" ] && command -v systemctl >/dev/null; then
        as_root systemctl disable --now nginx >/dev/null 2>&1 || true
    fi
    if [ -z "$haproxy" ] && command -v systemctl >/dev/null; then
        as_root systemctl disable --now haproxy >/dev/null 2>&1 || true
    fi
    if [ -z "$promtool" ] && command -v systemctl >/dev/null; then
        as_root systemctl disable --now prometheus >/dev/null 2>&1 || true
    fi
    nginx=$(PATH=$PATH:/usr/sbin command -v nginx)
    haproxy=$(PATH=$PATH:/usr/sbin command -v haproxy)
fi

if ! "$environment/bin/python" -c 'import websockets' 2>/dev/null; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check "$websockets"
fi

echo "clients: $(curl --version | head -n 1 | cut -d ' ' -f 1-2), $(chromium --version 2>/dev/null), $("$nginx" -v 2>&1 | cut -d ' ' -f 3), haproxy $("$haproxy" -v | head -n 1 | cut -d ' ' -f 3), promtool $(promtool --version | head -n 1 | cut -d ' ' -f 3), $("$environment/bin/pip" freeze)"
