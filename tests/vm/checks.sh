# What the scripts beside it check with, in the guest. Each sets `unit`, whose log is shown when something fails.

ok() { echo "ok   $*"; }
fail() {
    echo "FAIL $*"
    systemctl --no-pager status "$unit" || true
    journalctl --no-pager -u "$unit" | tail -n 40
    exit 1
}
# Looks until the command succeeds, for ten seconds.
eventually() {
    for _ in $(seq 100); do
        if eval "$1"; then return 0; fi
        sleep 0.1
    done
    fail "not within ten seconds: $1"
}
property() { systemctl show --value -p "$1" "$unit"; }
