#!/bin/bash
# The guest of /work/shared/vm with Ubuntu in it, for the scripts beside this one: see README.md.
#
#   VM_GUEST=tests/vm/ubuntu-guest.sh tests/vm/package.sh      options and command are those of run-guest.sh
#
#   UBUNTU=noble       the release; noble is 24.04, and the only one that was tried
#   GUEST="-a tcg"     options put before the others: this one boots Ubuntu's own kernel, with AppArmor, in QEMU and
#                      slowly; else it is the User Mode Linux of the Debian guest
#
# Built when it is missing, or when this script has changed: 3 minutes, 600 MB in $VM_CACHE-$UBUNTU, from
# archive.ubuntu.com. Needs root, and what build-guest.sh installs. The keys of Ubuntu's archive come from Debian.
set -euo pipefail

suite=${UBUNTU:-noble}
shared=${VM:-/work/shared/vm}
debian=${VM_CACHE:-$HOME/.cache/corecast-vm}
cache=$debian-$suite
# A server as Ubuntu installs one, what build-guest.sh has besides, and Podman for container.sh.
packages=ubuntu-minimal,systemd-sysv,dbus,apparmor,needrestart,unattended-upgrades,iproute2,procps,curl,ca-certificates
packages+=,openssl,python3,socat,strace,lsof,ethtool,less,jq,podman,crun,netavark,iptables

build() {
    work=$(mktemp -d "$cache/build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # Debian's apt, without touching /etc/apt: its stable and unstable for the keys, then Ubuntu's archive.
    (cd "$work" && APT_CONFIG=$debian/apt/kernels/apt.conf apt-get download -qq ubuntu-keyring/sid)
    dpkg -x "$work"/ubuntu-keyring_*.deb "$work/keyring"
    key=$work/keyring/usr/share/keyrings/ubuntu-archive-keyring.gpg
    mkdir -p "$work"/apt/lists/partial "$work"/apt/cache/archives/partial
    for part in "$suite" "$suite-updates" "$suite-security"; do
        echo "deb [signed-by=$key] http://archive.ubuntu.com/ubuntu $part main universe"
    done >"$work/apt/sources.list"
    cat >"$work/apt/apt.conf" <<CONF
Dir::Etc::SourceList "$work/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$work/apt/lists";
Dir::Cache "$work/apt/cache";
APT::Sandbox::User "root";
CONF

    echo "Ubuntu's kernel ..." >&2
    export APT_CONFIG=$work/apt/apt.conf
    apt-get update -qq
    image=$(apt-cache depends linux-image-virtual | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    version=${image#linux-image-}
    (cd "$work" && apt-get download -qq "$image" "linux-modules-$version")
    unset APT_CONFIG
    for package in "$work"/linux-*.deb; do dpkg -x "$package" "$work/kernel"; done
    mkdir -p "$work/qemu" "$work/initrd"/{dev,root}
    cp "$work/kernel/boot/vmlinuz-$version" "$work/qemu/vmlinuz"
    # virtio_blk is no module there.
    sed '/virtio_blk/d' "$shared/src/init.c" | gcc -O2 -static -o "$work/initrd/init" -xc -
    (cd "$work/initrd" && find . | cpio -o -H newc --quiet) >"$work/qemu/initrd"

    echo "Ubuntu's root file system ..." >&2
    mmdebstrap --quiet --variant=minbase --include="$packages" --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$work/root" - <"$work/apt/sources.list"
    # For User Mode Linux those of the Debian guest.
    mkdir -p "$work/modules" "$work/root/lib/modules"
    debugfs -R "rdump /usr/lib/modules $work/modules" "$debian/rootfs.ext4" 2>/dev/null
    rm -rf "$work/modules/modules/$(cat "$debian/qemu/version")"
    cp -a "$work"/modules/modules/* "$work"/kernel/lib/modules/* "$work/root/lib/modules/"
    for modules in "$work"/root/lib/modules/*; do chroot "$work/root" depmod "${modules##*/}"; done
    install -m 755 "$shared"/src/guest-{run,reboot} "$work/root/usr/local/sbin/"
    install -m 644 "$shared/src/guest-run.service" "$work/root/etc/systemd/system/"
    echo guest >"$work/root/etc/hostname"
    echo "127.0.0.1 localhost guest" >"$work/root/etc/hosts"
    : >"$work/root/etc/fstab"
    # As build-guest.sh: no login, no network but loopback, nothing periodic.
    chroot "$work/root" systemctl --quiet enable guest-run.service
    chroot "$work/root" systemctl --quiet mask getty.target apt-daily.timer apt-daily-upgrade.timer fstrim.timer \
        e2scrub_all.timer e2scrub_reap.service systemd-timesyncd.service systemd-networkd.service \
        systemd-networkd-wait-online.service systemd-network-generator.service ua-timer.timer 2>/dev/null || true
    truncate -s 6G "$work/rootfs.ext4"
    mke2fs -q -t ext4 -O ^has_journal -d "$work/root" "$work/rootfs.ext4"

    rm -rf "$cache/uml" "$cache/qemu"
    cp -a "$debian/uml" "$cache/uml"
    mv "$work/qemu" "$work/rootfs.ext4" "$cache/"
    # run-guest.sh builds with the script beside it, and here there is nothing left to build.
    ln -sf "$shared/run-guest.sh" "$cache/run-guest.sh"
    ln -sf /bin/true "$cache/build-guest.sh"
    rm -rf "$work"
    trap - EXIT
}

"$shared/build-guest.sh" >&2
mkdir -p "$cache"
exec 9>"$cache/build.lock"
flock 9
stamp=$(cat "$0" "$debian/stamp" | sha256sum)
if [ "$(cat "$cache/stamp" 2>/dev/null)" != "$stamp" ]; then
    build
    echo "$stamp" >"$cache/stamp"
fi
exec 9>&-
# shellcheck disable=SC2086  # options, split where they have spaces
VM_CACHE=$cache exec "$cache/run-guest.sh" ${GUEST:-} "$@"
