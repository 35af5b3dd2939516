#!/bin/sh
# Installs the gateway as a service from a checkout, as the package does, but below /usr/local.
#
#   systemd/install.sh [BINARY]       BINARY: target/release/corecast where not given; enables and starts it
#   systemd/install.sh --uninstall    undoes it; the configuration stays unless it is as it was shipped
#
# corecast-bench is taken from beside BINARY, manual pages and completions from target/package, where they are there:
#   cargo run --release --example pages -- target/package
#
# DESTDIR=/somewhere only puts the files there. An edited configuration is kept.
set -eu
cd "$(dirname "$0")/.."
root=${DESTDIR:-}
programs=/usr/local/bin
share=/usr/local/share
units=/etc/systemd/system
config=/etc/corecast/corecast.toml

live() { [ -z "$root" ]; }
if live && [ "$(id -u)" != 0 ]; then
    echo "install.sh: needs root; try: sudo $0 $*" >&2
    exit 1
fi

if [ "${1:-}" = --uninstall ]; then
    if live; then
        systemctl disable --now corecast.socket corecast.service 2>/dev/null || true
    fi
    rm -f "$root$programs/corecast" "$root$programs/corecast-bench" \
        "$root$units/corecast.service" "$root$units/corecast.socket" \
        "$root/etc/sysusers.d/corecast.conf" "$root/etc/tmpfiles.d/corecast.conf" \
        "$root/etc/sysctl.d/30-corecast.conf" \
        "$root$share"/man/man1/corecast.1 "$root$share"/man/man1/corecast-*.1 "$root$share/man/man5/corecast.toml.5" \
        "$root$share/bash-completion/completions/corecast" "$root$share/bash-completion/completions/corecast-bench" \
        "$root$share/zsh/site-functions/_corecast" "$root$share/zsh/site-functions/_corecast-bench" \
        "$root$share/fish/vendor_completions.d/corecast.fish" \
        "$root$share/fish/vendor_completions.d/corecast-bench.fish" \
        "$root$share/corecast/grafana.json" "$root$share/corecast/alerts.yml"
    if [ -d "$root$share/corecast" ]; then rmdir --ignore-fail-on-non-empty "$root$share/corecast"; fi
    if [ -f "$root$config" ] && cmp -s systemd/corecast.toml "$root$config"; then
        rm "$root$config"
        rmdir "$root/etc/corecast"
    elif [ -f "$root$config" ]; then
        echo "install.sh: $root$config was edited and stays"
    fi
    if live; then
        rm -rf /run/corecast
        systemctl daemon-reload
        systemctl reset-failed corecast.service 2>/dev/null || true
        if getent passwd corecast >/dev/null; then userdel corecast; fi
        # userdel leaves a group that has other members, the programs that push.
        if getent group corecast >/dev/null; then groupdel corecast; fi
    fi
    exit 0
fi

built=${1:-target/release/corecast}
if [ ! -x "$built" ]; then
    echo "install.sh: there is no $built; try: cargo build --release" >&2
    exit 1
fi
# Each file of the first directory, into the second.
each() {
    if [ -d "$1" ]; then install -D -m 0644 -t "$root$2" "$1"/*; fi
}
install -D -m 0755 "$built" "$root$programs/corecast"
if [ -x "$built-bench" ]; then install -m 0755 "$built-bench" "$root$programs/corecast-bench"; fi
each target/package/man1 "$share/man/man1"
each target/package/man5 "$share/man/man5"
each target/package/bash "$share/bash-completion/completions"
each target/package/zsh "$share/zsh/site-functions"
each target/package/fish "$share/fish/vendor_completions.d"
install -D -m 0644 -t "$root$share/corecast" tuning/grafana.json tuning/alerts.yml
install -D -m 0644 systemd/corecast.socket "$root$units/corecast.socket"
sed "s,/usr/bin/corecast,$programs/corecast," systemd/corecast.service >"$root$units/corecast.service"
install -D -m 0644 systemd/corecast.sysusers "$root/etc/sysusers.d/corecast.conf"
install -D -m 0644 systemd/corecast.tmpfiles "$root/etc/tmpfiles.d/corecast.conf"
install -D -m 0644 systemd/corecast.sysctl "$root/etc/sysctl.d/30-corecast.conf"
if [ -f "$root$config" ] && ! cmp -s systemd/corecast.toml "$root$config"; then
    echo "install.sh: $root$config was edited and is kept"
else
    install -D -m 0644 systemd/corecast.toml "$root$config"
fi
if live; then
    systemd-sysusers /etc/sysusers.d/corecast.conf
    systemd-tmpfiles --create /etc/tmpfiles.d/corecast.conf
    # Only this key, and all files: what the administrator has set for it wins. A container may not set it.
    /usr/lib/systemd/systemd-sysctl --prefix=/net/core/somaxconn || true
    systemctl daemon-reload
    systemctl enable corecast.service
    systemctl restart corecast.service
    systemctl --no-pager --lines 0 status corecast.service
fi
