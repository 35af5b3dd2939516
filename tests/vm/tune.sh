#!/bin/bash
# corecast tune on a real system: apply, reboot, look, undo, in the throwaway guest of ../shared/vm.
#
#   tests/vm/tune.sh [BINARY]      BINARY defaults to target/debug/corecast; about 15 s once the guest is built
#
# Outside it copies the binary and itself into the guest; there it runs twice, before and after a reboot.
set -u

if [ -z "${BOOT:-}" ]; then
    set -e
    here=$(cd "$(dirname "$0")/../.." && pwd)
    in=$(mktemp -d)
    trap 'rm -rf "$in"' EXIT
    strip -o "$in/corecast" "${1:-$here/target/debug/corecast}"
    cp "$0" "$in/tune.sh"
    "${VM_GUEST:-/work/shared/vm/run-guest.sh}" -i "$in" -m 2000 -t 180 'bash tune.sh'
    exit
fi

failed=0
check() { # NAME COMMAND...: the command must succeed
    local name=$1
    shift
    if "$@" >/tmp/said 2>&1; then echo "ok      $name"; else
        echo "FAILED  $name"; sed 's/^/        /' /tmp/said; failed=1; fi
}
refused() { # STATUS PART COMMAND...: it must end with this status and say that on standard error
    local status=$1 part=$2
    shift 2
    "$@" >/dev/null 2>/tmp/refusal
    local got=$?
    cat /tmp/refusal
    [ "$got" = "$status" ] && grep -q "$part" /tmp/refusal
}
keys='fs.nr_open fs.file-max net.core.somaxconn net.ipv4.tcp_mem net.core.wmem_max net.netfilter.nf_conntrack_max'
values() { for key in $keys; do echo "$key = $(sysctl -n "$key" | tr '\t' ' ')"; done; }
settings() { sed -n 's/^-\{0,1\}\([a-z].* = .*\)$/\1/p' /etc/sysctl.d/99-corecast.conf; }
as_the_file_says() { # every setting of the file is in force
    settings | sort >/tmp/settings
    [ -s /tmp/settings ] && [ -z "$(values | sort | comm -13 - /tmp/settings | tee /dev/stderr)" ]
}
as_before() { diff /root/before <(values); }
read_only() { # in a mount namespace whose /proc/sys is read-only, as in a container
    unshare --mount bash -c 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys &&
        exec ./corecast tune --connections 1000000 --apply'
}
modprobe nf_conntrack

if [ "$BOOT" = 1 ]; then
    echo "kernel $(uname -r), $(systemctl --version | head -1)"
    values | tee /root/before
    check "check finds too little for a million" refused 1 'too little for 1,000,000' ./corecast check --connections 1000000
    check "nothing to undo yet" refused 1 'nothing to undo' ./corecast tune --undo
    check "showing changes nothing" bash -c './corecast tune --connections 1000000 | grep -q "nothing is changed" && ! test -e /etc/sysctl.d/99-corecast.conf'
    check "and the values are as before" as_before
    check "another user is refused" refused 1 'only root' setpriv --reuid 65534 --clear-groups ./corecast tune --connections 1000000 --apply
    check "a read-only /proc/sys is refused" refused 1 'this is a container' read_only
    check "nothing is left of either" bash -c '! test -e /etc/sysctl.d/99-corecast.conf && ! test -e /var/lib/corecast'
    check "the values are still as before" as_before
    ./corecast tune --connections 1000000 --apply || failed=1
    check "the values are as the file says" as_the_file_says
    check "sysctl --system takes the file" bash -c 'sysctl --system 2>&1 | grep -A99 99-corecast | grep -q "net.core.somaxconn = 33334"'
    cp /etc/sysctl.d/99-corecast.conf /root/applied
    check "applying again changes nothing" bash -c './corecast tune --connections 1000000 --apply | grep "tuned for 1,000,000 connections already"'
    check "not even the file" cmp /root/applied /etc/sysctl.d/99-corecast.conf
    [ "$failed" = 0 ] || exit 1
    # The module must be there when systemd-sysctl runs: the file says so.
    echo nf_conntrack >/etc/modules-load.d/corecast.conf
    guest-reboot
    exit
fi

echo "after the reboot"
check "the values are as the file says" as_the_file_says
check "what tune can mend is enough now" bash -c './corecast check --connections 1000000 2>/dev/null | grep -E "somaxconn|tcp_mem|conntrack" | grep -c enough | grep -x 3'
check "undo" ./corecast tune --undo
check "the values are as before the first boot's apply" as_before
check "the file is gone, and the record" bash -c '! test -e /etc/sysctl.d/99-corecast.conf && ! test -e /var/lib/corecast'
check "nothing to undo any more" refused 1 'nothing to undo' ./corecast tune --undo
# What was there before is kept: another file of that name, and values of its own.
echo 'net.core.somaxconn = 512' >/etc/sysctl.d/99-corecast.conf
sysctl -q -w net.core.somaxconn=512
check "apply over another file" ./corecast tune --connections 1000000 --apply
check "undo puts that one back" bash -c './corecast tune --undo && grep -x "net.core.somaxconn = 512" /etc/sysctl.d/99-corecast.conf && test "$(sysctl -n net.core.somaxconn)" = 512'
exit $failed
