#!/bin/bash
# Memory in a real cgroup (version 2, MemoryMax=): see README.md. Here it boots the guest; there it is the test.
set -euo pipefail

if [ "${1:-}" != --in-guest ]; then
    cd "$(dirname "$0")/../.."
    binary=${1:-target/debug/corecast}
    input=$(mktemp -d)
    trap 'rm -rf "$input"' EXIT
    cp tests/vm/memory.sh tests/vm/checks.sh "$input/"
    # Debugging information is most of it, and copying takes time.
    strip -o "$input/corecast" "$binary"
    "${VM_GUEST:-/work/shared/vm/run-guest.sh}" -i "$input" -m 1500 -t 300 'bash memory.sh --in-guest'
    exit
fi

unit=memory.service
. ./checks.sh
install -m 755 corecast /usr/local/bin/corecast
export CORECAST_SOCKET=/run/memory.sock
limit=$((128 << 20))
systemd-run --quiet --unit memory -p "MemoryMax=$limit" -p MemorySwapMax=0 -p LimitNOFILE=4096 -p LimitMEMLOCK=8M \
    corecast serve --shards 1 --socket "$CORECAST_SOCKET" --set history.bytes=1GiB --set history.messages=1000000
eventually 'corecast stats >/dev/null 2>&1'
stat() { corecast stats --json | grep -o "\"$1\": *[0-9]*" | head -n 1 | grep -o '[0-9]*$'; }
status() { curl -s -o /dev/null -w '%{http_code}' 'http://127.0.0.1:8080/poll?timeout=0'; }

eventually '[ "$(stat memory_limit_bytes)" = "$limit" ]'
ok "the limit of the cgroup is seen without any setting: $(corecast stats | grep ^memory)"
[ "$(status)" = 200 ] || fail "$(status) at first"

used=$(stat memory_used_bytes)
[ "$used" -lt $((limit / 2)) ] || fail "$used bytes in use at the start"

# What is kept for resuming fills it.
line=$(head -c 60000 /dev/zero | tr '\0' x)
for _ in $(seq 20); do echo "$line"; done >/tmp/lines
for _ in $(seq 200); do
    corecast push --topic t --text --lines </tmp/lines >/dev/null
    # It is looked at once a second.
    sleep 0.2
    if [ "$(($(stat memory_used_bytes) * 100 / limit))" -ge 90 ]; then break; fi
done
eventually 'journalctl -u memory.service | grep -q "memory: [89]. % of"'
eventually '[ "$(status)" = 503 ]'
curl -s 'http://127.0.0.1:8080/poll?timeout=0' | grep -q 'memory is short' || fail "another reason"
group=$(systemctl show --value -p ControlGroup memory)
current=$(cat "/sys/fs/cgroup$group/memory.current") || fail "no $group: was it killed?"
ok "at $(corecast stats | grep ^memory) (memory.current $current) new clients get 503"
[ "$(systemctl show --value -p NRestarts memory)" = 0 ] && systemctl -q is-active memory || fail "it was killed"
corecast push --topic t still-there >/dev/null || fail "no push"
ok "it lives, and pushes are taken"
corecast drain --within 1s >/dev/null
