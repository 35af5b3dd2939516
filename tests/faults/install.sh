#!/bin/sh
# Installs the programs of others that tests/faults runs: slowhttptest, libfaketime, curl, python3, ip, and unshare,
# nsenter and setpriv of util-linux. Does nothing where they are there already.
set -eu

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=
command -v slowhttptest >/dev/null || missing="$missing slowhttptest"
command -v curl >/dev/null || missing="$missing curl"
command -v python3 >/dev/null || missing="$missing python3"
command -v setpriv >/dev/null || missing="$missing util-linux"
PATH=$PATH:/usr/sbin:/sbin command -v ip >/dev/null || missing="$missing iproute2"
[ -n "$(find /usr/lib /usr/lib64 -name libfaketimeMT.so.1 2>/dev/null)" ] || missing="$missing faketime"
if [ -n "$missing" ]; then
    as_root apt-get update -qq
    # Word splitting is wanted: one argument a package.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $missing >/dev/null
fi
