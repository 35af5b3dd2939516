#!/bin/bash
# The package on a clean guest: see README.md. Here it boots the guest; there it is the test.
set -euo pipefail

if [ "${1:-}" != --in-guest ]; then
    cd "$(dirname "$0")/../.."
    input=$(mktemp -d)
    trap 'rm -rf "$input"' EXIT
    if [ $# -gt 0 ]; then packages=("$1"); else packages=(target/debian/corecast_*.deb); fi
    if [ ${#packages[@]} != 1 ] || [ ! -e "${packages[0]}" ]; then
        echo "package.sh: one package is wanted, there is: ${packages[*]}; try: package/build, or name it" >&2
        exit 2
    fi
    # The same with a higher version, and the pages as an installed system has them.
    cp "${packages[0]}" "$input/first.deb"
    dpkg-deb -R "$input/first.deb" "$input/unpacked"
    sed -i 's/^Version: .*/&.1/' "$input/unpacked/DEBIAN/control"
    dpkg-deb --root-owner-group -Zgzip -z1 -b "$input/unpacked" "$input/second.deb" >/dev/null
    pages=0
    for page in "$input"/unpacked/usr/share/man/man?/*.gz; do
        warnings=$(zcat "$page" | groff -man -Tutf8 -ww 2>&1 >/dev/null) || warnings="it fails; $warnings"
        if [ -n "$warnings" ]; then
            echo "FAIL ${page##*/}: $warnings"
            exit 1
        fi
        pages=$((pages + 1))
    done
    echo "ok   groff renders $pages manual pages without a warning"
    rm -r "$input/unpacked"
    # In the shape of Docker's: what holds for all, for a capability, for an architecture, and without a capability.
    allowed=$(jq -c -f container/seccomp.jq <<'JSON' | jq -r '.syscalls[] | .action + " " + (.names | join(","))'
{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "archMap": [], "syscalls": [
  {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
  {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
  {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
  {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
  {"names": ["cacheflush"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
  {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390x"]}},
  {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}
JSON
    )
    if [ "$allowed" != "$(printf 'SCMP_ACT_ALLOW %s\n' read ptrace arch_prctl clone
        printf 'SCMP_ACT_ERRNO clone3\nSCMP_ACT_ALLOW io_uring_setup,io_uring_enter,io_uring_register')" ]; then
        echo "FAIL container/seccomp.jq makes: $allowed"
        exit 1
    fi
    echo "ok   the seccomp profile holds what a container without capabilities may, and io_uring"
    cp tests/vm/package.sh tests/vm/checks.sh tests/vm/connect.py "$input/"
    "${VM_GUEST:-/work/shared/vm/run-guest.sh}" -i "$input" -t 600 'bash package.sh --in-guest'
    exit
fi

unit=corecast.service
. ./checks.sh
# The guest's dpkg leaves manual pages out, to be small.
apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o 'Dpkg::Options::=--path-include=/usr/share/man/*' "$@" \
        >/tmp/apt 2>&1 || fail "apt-get $*: $(cat /tmp/apt)"
}
# Every file, user and group; without what the system itself writes all the time.
everything() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/tmp -o -path /guest \
        -o -path /var/log -o -path /var/cache -o -path /var/lib/apt \) -prune -o -print | sort
    find /run -xdev \( -path /run/systemd -o -path /run/udev -o -path /run/log -o -path /run/needrestart \) -prune -o -print | sort
    getent passwd
    getent group
}

everything >/tmp/before
somaxconn=$(sysctl -n net.core.somaxconn)

apt install ./first.deb
[ "$(property ActiveState)" = active ] || fail "it is not active: $(cat /tmp/apt)"
[ "$(systemctl is-enabled corecast.service)" = enabled ] || fail "it is not enabled"
[ "$(ps -o user= -p "$(property MainPID)")" = corecast ] || fail "it runs as another user"
[ "$(systemctl is-enabled corecast.socket 2>&1)" = disabled ] || fail "corecast.socket is enabled"
[ "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/healthz)" = 200 ] || fail "/healthz"
ok "apt install: active, enabled, under user corecast, answering"

curl -sN 'http://127.0.0.1:8080/sse?topics=t' >/tmp/stream &
eventually 'grep -q ^retry /tmp/stream'
corecast push --topic t hello | grep -q '1 connection' || fail "the push reached nobody"
eventually 'grep -q "^data: hello" /tmp/stream'
ok "a push arrives"
[ "$(stat -c '%a %U:%G' /etc/corecast/corecast.toml)" = "644 root:root" ] || fail "$(stat /etc/corecast/corecast.toml)"
dpkg-query -W -f '${Conffiles}' corecast | grep -q ' /etc/corecast/corecast.toml ' || fail "it is no conffile"
systemd-analyze verify --man=no /usr/lib/systemd/system/corecast.service /usr/lib/systemd/system/corecast.socket \
    2>/tmp/verify || fail "$(cat /tmp/verify)"
[ ! -s /tmp/verify ] || fail "systemd-analyze verify: $(cat /tmp/verify)"
[ -x /usr/bin/corecast-bench ] && corecast-bench --version >/dev/null || fail "corecast-bench"
backlog=$(ss -Hltn 'sport = :8080' | awk '{ print $3 }' | sort -u)
[ "$(sysctl -n net.core.somaxconn) $backlog" = "33334 33334" ] || fail "somaxconn and backlog: $backlog"
ok "the configuration is a conffile, the units are sound, and the backlog is 33334 from the first start (before: $somaxconn)"

complete='source "/usr/share/bash-completion/completions/$1"; COMP_WORDS=("$1" "$2"); COMP_CWORD=1
    $(complete -p "$1" | sed "s/.*-F \([^ ]*\).*/\1/") "$1" "$2" "$1"; echo "${COMPREPLY[@]}"'
[ "$(bash -c "$complete" bash corecast pu)" = push ] || fail "bash does not complete corecast pu"
[ "$(bash -c "$complete" bash corecast-bench fa)" = fanout ] || fail "bash does not complete corecast-bench fa"
for page in corecast.1 corecast-push.1 corecast-bench.1 corecast-bench-hold.1 corecast.toml.5; do
    zcat "/usr/share/man/man${page##*.}/$page.gz" | grep -q '^.SH NAME' || fail "no $page"
done
ok "bash completes, the manual pages are there"

# As under Docker's default profile, which answers EPERM.
refused=0
systemd-run --quiet --pipe --wait -p SystemCallFilter=~io_uring_setup -p SystemCallErrorNumber=EPERM \
    corecast serve --listen 127.0.0.1:0 --socket /tmp/refused.sock >/tmp/refused 2>&1 </dev/null || refused=$?
[ "$refused" = 12 ] || fail "without io_uring: status $refused: $(cat /tmp/refused)"
for part in 'io_uring_setup was refused (EPERM)' 'seccomp filter (mode 2)' 'docker run --security-opt seccomp=' \
    seccompProfile; do
    grep -qF "$part" /tmp/refused || fail "without io_uring it does not say \"$part\": $(cat /tmp/refused)"
done
ok "under a seccomp filter without io_uring it ends with status 12 and says:"
sed 's/^/     /' /tmp/refused

# A client that stays, and others that come, while it is upgraded.
sed -i 's/^message_bytes = .*/message_bytes = "100"/; s/^drain = .*/drain = "3s"/' /etc/corecast/corecast.toml
systemctl reload corecast.service
eventually 'corecast stats --json | grep -q "\"reloads\":1"'
cp /etc/corecast/corecast.toml /tmp/edited
cat >/tmp/client.py <<'PYTHON'
import socket, struct
client = socket.create_connection(("127.0.0.1", 8080))
client.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
stream = client.makefile("rb")
while stream.readline() not in (b"\r\n", b""):
    pass
print("open", flush=True)
while True:
    first, length = stream.read(2)
    payload = stream.read(length)
    if first == 0x89:  # a ping; the empty pong is masked
        client.sendall(b"\x8a\x80\0\0\0\0")
    else:
        break
print(f"{first & 15} {struct.unpack('>H', payload[:2])[0]} {payload[2:].decode()}")
PYTHON
python3 /tmp/client.py >/tmp/client &
client=$!
eventually 'grep -q open /tmp/client'
python3 connect.py 8080 15 >/tmp/connects &
connects=$!
before=$(property MainPID)
apt install ./second.deb
wait $client || fail "the client failed: $(cat /tmp/client)"
grep -qE '^8 1012 reconnect after [0-9]+ ms$' /tmp/client || fail "the client was told: $(cat /tmp/client)"
[ "$(property ActiveState)" = active ] && [ "$(property MainPID)" != "$before" ] || fail "it was not restarted"
version=$(dpkg-query -W -f '${Version}' corecast)
[ "$version" = "$(dpkg-deb -f second.deb Version)" ] || fail "the version is $version"
cmp /tmp/edited /etc/corecast/corecast.toml || fail "the edited configuration is gone"
corecast config --config /etc/corecast/corecast.toml | grep -q '^message_bytes = "100B"\|^message_bytes = 100' ||
    fail "$(corecast config --config /etc/corecast/corecast.toml | grep message_bytes)"
wait $connects || fail "connect.py failed"
if grep -qE 'Refused|Timeout' /tmp/connects; then fail "connects over the upgrade: $(cat /tmp/connects)"; fi
ok "upgraded to $version: configuration kept, the client was told \"$(sed -n 's/^8 //p' /tmp/client)\""
ok "and no connect was refused: $(cat /tmp/connects)"

systemctl disable --quiet corecast.service
apt install --reinstall ./second.deb
[ "$(systemctl is-enabled corecast.service)" = disabled ] || fail "it was enabled again"
systemctl enable --quiet corecast.service
ok "who has disabled it finds it disabled after an upgrade"

apt remove corecast
[ "$(property LoadState)" = not-found ] || fail "the unit is still there"
[ ! -e /usr/bin/corecast ] && [ ! -e /run/corecast ] || fail "left by remove"
if ss -Hltn 'sport = :8080' | grep -q .; then fail "the listener is still open"; fi
cmp /tmp/edited /etc/corecast/corecast.toml || fail "remove took the configuration"
ok "apt remove: stopped and gone, the configuration stays"

apt install ./second.deb
[ "$(property ActiveState)" = active ] && cmp /tmp/edited /etc/corecast/corecast.toml || fail "not as it was"
# All that purge has to find: a drop-in, the socket unit, a program that may push, the profile.
usermod -aG corecast nobody
mkdir /etc/systemd/system/corecast.service.d
printf '[Service]\nTimeoutStopSec=60\n' >/etc/systemd/system/corecast.service.d/override.conf
systemctl daemon-reload
systemctl stop corecast.service
systemctl enable --quiet --now corecast.socket
systemctl start corecast.service
corecast tune --connections 1000000 --apply >/dev/null
[ -e /etc/sysctl.d/99-corecast.conf ] && [ -e /var/lib/corecast/tune.json ] || fail "tune wrote nothing"
apt purge corecast
everything >/tmp/after
if ! diff /tmp/before /tmp/after >/tmp/difference; then fail "purge leaves: $(cat /tmp/difference)"; fi
ok "apt purge leaves the $(wc -l </tmp/after) files, users and groups of before the first install"

apt install ./second.deb
echo 'net.core.somaxconn = 512' >/etc/sysctl.d/99-corecast.conf
corecast tune --connections 1000000 --apply >/dev/null
apt purge corecast
grep -q 'holds the /etc/sysctl.d/99-corecast.conf of before corecast tune; both stay' /tmp/apt || fail "$(cat /tmp/apt)"
grep -q 'net.core.somaxconn = 512' /var/lib/corecast/tune.json || fail "the file of before corecast tune is lost"
ok "apt purge keeps a file that corecast tune replaced, and says where it is"
