#!/bin/sh
# Installs the clients of others that tests/gateway runs: curl, headless Chromium, and Python's
# `websockets` in a virtual environment under target/. Does nothing where they are there already.
set -eu
cd "$(dirname "$0")/../.."

# Pinned, so that the test means the same next year.
websockets=websockets==15.0.1
environment=target/test-clients

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=
command -v curl >/dev/null || missing="$missing curl"
command -v chromium >/dev/null || missing="$missing chromium"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3 python3-venv"
if [ -n "$missing" ]; then
    as_root apt-get update -qq
    # Word splitting is wanted: one argument a package.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $missing >/dev/null
fi

if ! "$environment/bin/python" -c 'import websockets' 2>/dev/null; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check "$websockets"
fi

echo "clients: $(curl --version | head -n 1 | cut -d ' ' -f 1-2), $(chromium --version 2>/dev/null), $("$environment/bin/pip" freeze)"
