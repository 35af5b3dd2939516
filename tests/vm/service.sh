#!/bin/bash
# The service under a real systemd: see README.md. Here it boots the guest; there it is the test.
set -euo pipefail

if [ "${1:-}" != --in-guest ]; then
    cd "$(dirname "$0")/../.."
    binary=${1:-target/debug/corecast}
    input=$(mktemp -d)
    trap 'rm -rf "$input"' EXIT
    cp -r systemd tuning "$input/"
    cargo run --quiet --example pages -- "$input/target/package"
    cp tests/vm/service.sh tests/vm/checks.sh tests/vm/connect.py "$input/"
    # Debugging information is most of it, and copying takes time.
    strip -o "$input/corecast" "$binary"
    strip -o "$input/corecast-bench" "$binary-bench"
    "${VM_GUEST:-/work/shared/vm/run-guest.sh}" -i "$input" -t 300 'bash service.sh --in-guest'
    exit
fi

unit=corecast.service
. ./checks.sh
push() { corecast push --topic t "$1" >/dev/null; }
# A client that stays: an event stream, its events in the file.
client() { curl -sN 'http://127.0.0.1:8080/sse?topics=t' >"$1" & client=$!; eventually "grep -q ^retry $1"; }

systemd/install.sh ./corecast >/dev/null || fail "install.sh"
[ "$(property ActiveState)" = active ] || fail "it is not active"
usermod -aG corecast nobody
ok "installed, enabled and started under user $(ps -o user= -p "$(property MainPID)")"
for page in man1/corecast.1 man1/corecast-push.1 man1/corecast-bench-hold.1 man5/corecast.toml.5; do
    [ -s "/usr/local/share/man/$page" ] || fail "no manual page $page"
done
[ -s /usr/local/share/corecast/alerts.yml ] || fail "no alerts"
[ -s /usr/local/share/bash-completion/completions/corecast-bench ] && corecast-bench --version >/dev/null ||
    fail "no corecast-bench, or no completion for it"
[ "$(sysctl -n net.core.somaxconn) $(ss -Hltn 'sport = :8080' | awk '{ print $3 }' | sort -u)" = "33334 33334" ] ||
    fail "the backlog is $(ss -Hltn 'sport = :8080')"
ok "with corecast-bench, manual pages, completions and the kernel setting"

# The guest has no man(1).
systemd-analyze verify --man=no /etc/systemd/system/corecast.service 2>/tmp/verify || fail "verify: $(cat /tmp/verify)"
[ ! -s /tmp/verify ] || fail "verify says: $(cat /tmp/verify)"
ok "systemd-analyze verify is silent"
exposure=$(systemd-analyze security --no-pager corecast.service | sed -n 's/.*Overall exposure level[^0-9]*\([0-9.]*\).*/\1/p')
awk -v e="$exposure" 'BEGIN { exit !(e != "" && e <= 2.0) }' || fail "exposure is $exposure"
ok "systemd-analyze security: exposure $exposure, at most 2.0"

limits=/proc/$(property MainPID)/limits
grep -q 'Max open files *1048576 *1048576' "$limits" || fail "$(grep files "$limits")"
grep -q 'Max locked memory *8388608' "$limits" || fail "$(grep locked "$limits")"
[ "$(stat -c '%a %U:%G' /run/corecast /run/corecast/control.sock | xargs)" = \
    "750 corecast:corecast 660 corecast:corecast" ] || fail "$(stat /run/corecast /run/corecast/control.sock)"
ok "limits, directory and socket are as the unit says"

client /tmp/one
push hello
eventually 'grep -q "^data: hello" /tmp/one'
eventually 'property StatusText | grep -q "1 connection"'
ok "a push arrives, and the status line says: $(property StatusText)"

sed -i 's/^message_bytes = .*/message_bytes = "100"/' /etc/corecast/corecast.toml
systemctl reload corecast.service
eventually 'corecast stats --json | grep -q "\"reloads\":1"'
if push "$(head -c 101 /dev/zero | tr '\0' x)" 2>/tmp/refused; then fail "the new limit does not hold"; fi
grep -q too_large /tmp/refused || fail "$(cat /tmp/refused)"
echo 'fragments = 0' >>/etc/corecast/corecast.toml
systemctl reload corecast.service
eventually 'property StatusText | grep -q "reload refused: /etc/corecast/corecast.toml line"'
[ "$(property ActiveState)" = active ] || fail "a refused reload ended it"
push still
eventually 'grep -q "^data: still" /tmp/one'
journalctl -u corecast.service -o json CORECAST_CHANGED=limits.message_bytes |
    grep '"MESSAGE":"configuration reloaded"' | grep '"PRIORITY":"[56]"' | grep -q '"SYSLOG_IDENTIFIER":"corecast"' ||
    fail "the journal has no field: $(journalctl -u corecast.service -o json | tail -n 3)"
journalctl -u corecast.service -p err | grep -q 'reload refused' || fail "no line of priority err"
ok "the journal has levels and fields"
ok "a good reload holds, a bad one is refused, and the client stays"
cp systemd/corecast.toml /etc/corecast/corecast.toml
systemctl reload corecast.service

before=$(property MainPID)
systemctl stop corecast.service
[ "$(property Result)" = success ] || fail "stop: $(property Result)"
eventually 'grep -q "^retry" /tmp/one && ! kill -0 '$client' 2>/dev/null'
systemctl start corecast.service
[ "$(property MainPID)" != "$before" ] || fail "the same process"
ok "stop drains and ends well, start begins anew"

mkdir -p /etc/systemd/system/corecast.service.d
printf '[Service]\nTimeoutStopSec=2\n' >/etc/systemd/system/corecast.service.d/test.conf
sed -i 's/^drain = .*/drain = "6s"/; s/^close = .*/close = "60s"/' /etc/corecast/corecast.toml
systemctl daemon-reload
systemctl restart corecast.service
# Answers no close, so that the drain lasts as long as it may.
exec 3<>/dev/tcp/127.0.0.1/8080
printf 'GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n' >&3
eventually 'corecast stats --json | grep -q "\"connections\":1"'
began=$SECONDS
systemctl stop corecast.service
exec 3>&-
[ "$(property Result)" = success ] || fail "a drain longer than TimeoutStopSec: $(property Result)"
[ $((SECONDS - began)) -ge 5 ] || fail "the drain was cut after $((SECONDS - began)) s"
ok "a drain of 6 s under TimeoutStopSec=2 is given its time"

printf '[Service]\nWatchdogSec=3\n' >/etc/systemd/system/corecast.service.d/test.conf
cp systemd/corecast.toml /etc/corecast/corecast.toml
systemctl daemon-reload
systemctl restart corecast.service
before=$(property MainPID)
sleep 7
[ "$(property MainPID)" = "$before" ] || fail "the watchdog bit while all shards turn"
ok "the watchdog is fed while all shards turn, over two of its periods at rest"
shard=$(grep -l '^shard-0' /proc/"$before"/task/*/comm | head -n 1 | cut -d/ -f5)
# Its next system calls are held up for a minute each, and the thread with them; all others go on.
strace -qq -p "$shard" -e trace=all -e inject=all:delay_enter=60000000 -o /dev/null 2>/dev/null &
tracer=$!
disown $tracer
eventually 'journalctl -u corecast.service | grep -q "Watchdog timeout"'
kill -KILL $tracer 2>/dev/null || true
eventually '[ "$(property ActiveState)" = active ] && [ "$(property MainPID)" != '"$before"' ]'
[ "$(property NRestarts)" -ge 1 ] || fail "NRestarts is $(property NRestarts)"
eventually 'corecast stats >/dev/null'
ok "a shard that stalls brings a restart"
rm -r /etc/systemd/system/corecast.service.d
systemctl daemon-reload

python3 connect.py 8080 6 >/tmp/connects &
connects=$!
sleep 1
systemctl restart corecast.service
systemctl kill -s KILL corecast.service
wait $connects
if grep -qE 'Refused|Timeout' /tmp/connects; then fail "connects over two restarts: $(cat /tmp/connects)"; fi
ok "over a restart and a crash no connect is refused: $(cat /tmp/connects)"

systemctl stop corecast.service
systemctl enable --now corecast.socket 2>/dev/null
[ "$(property ActiveState)" = inactive ] || fail "the socket unit started it"
push first || fail "a push does not start it"
[ "$(property ActiveState)" = active ] || fail "it is not active"
for n in $(seq 30); do push "$n" || echo "push $n" >>/tmp/failed; done &
pushes=$!
systemctl restart corecast.service
wait $pushes
[ ! -e /tmp/failed ] || fail "$(cat /tmp/failed) failed"
[ -S /run/corecast/control.sock ] || fail "the socket is gone"
ok "with corecast.socket a push starts the service, and pushes wait over a restart"
systemctl disable --now corecast.socket 2>/dev/null
systemctl stop corecast.service
systemctl start corecast.service

echo 'nonsense = 1' >>/etc/corecast/corecast.toml
systemctl restart corecast.service 2>/dev/null || true
eventually '[ "$(property ActiveState)" = failed ]'
[ "$(property ExecMainStatus)" = 2 ] && [ "$(property NRestarts)" = 0 ] || fail "it is tried again"
ok "a bad configuration is not tried again"
cp systemd/corecast.toml /etc/corecast/corecast.toml

systemd/install.sh --uninstall
left=$(find / -xdev \( -path /proc -o -path /sys -o -path /guest \) -prune -o -name '*corecast*' -print 2>/dev/null)
[ -z "$left" ] || fail "left behind: $left"
if getent passwd corecast || getent group corecast; then fail "the user is left"; fi
ok "uninstall leaves nothing"
