#!/bin/sh
# A million connections on one gateway, as installed by its package, in a throwaway guest: held, pinged, broadcast to,
# addressed one by one, told to leave, and back. Prints the table that stands in bench/README.md.
#
#   bench/million.sh [DEB [CONNECTIONS]]    DEB: the newest in target/debian; CONNECTIONS: 1000000
#
# Takes a `run-guest.sh` as tests/vm does (VM_GUEST names it), 12 GB of memory and up to an hour. Both ends are in the
# guest. MILLION_OUT names a directory for the raw readings; MILLION_UNTIL=held ends when all are up. MILLION_HEARTBEAT:
# 5m; with 1h nobody is pinged while the others connect.
set -eu
cd "$(dirname "$0")/.."
deb=${1:-$(ls -t target/debian/corecast_*.deb 2>/dev/null | head -n 1)}
if [ ! -f "$deb" ]; then
    echo "million.sh: there is no package; try: package/build" >&2
    exit 1
fi
connections=${2:-1000000}
input=$(mktemp -d)
out=${MILLION_OUT:-$(mktemp -d)}
trap 'rm -rf "$input"; [ -n "${MILLION_OUT:-}" ] || rm -rf "$out"' EXIT
cp "$deb" "$input/corecast.deb"
cp bench/million.py "$input/"
# Per connection 8.0 KB of kernel for both ends and 0.3 KB of the two processes; the rest is the system's.
memory_mib=$((2500 + connections * 85 / 10000))
echo "commit $(git rev-parse --short HEAD), $deb"
"${VM_GUEST:-/work/shared/vm/run-guest.sh}" -i "$input" -o "$out" -m "$memory_mib" -t "${MILLION_SECONDS:-5400}" \
    "MILLION_UNTIL=${MILLION_UNTIL:-} MILLION_HEARTBEAT=${MILLION_HEARTBEAT:-5m} python3 -u million.py $connections"
