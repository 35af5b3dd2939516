#!/bin/bash
# The container as README says: see README.md. Here it finds the image and boots the guest; there it is the test.
set -euo pipefail

if [ "${1:-}" != --in-guest ]; then
    here=$(cd "$(dirname "$0")" && pwd)
    image=${1:-localhost/corecast}
    if ! podman image exists "$image"; then
        echo "container.sh: there is no image $image; try: podman build -t corecast -f container/Dockerfile ." >&2
        exit 2
    fi
    input=$(mktemp -d)
    trap 'rm -rf "$input"' EXIT
    podman save --quiet -o "$input/image.tar" "$image"
    echo "     $image: $(podman image inspect -f '{{.Size}}' "$image") bytes unpacked"
    cp "$here/container.sh" "$here/checks.sh" "$here/../../container/seccomp.jq" "$input/"
    # It has Podman.
    "${VM_GUEST:-$here/ubuntu-guest.sh}" -i "$input" -t 600 'bash container.sh --in-guest'
    exit
fi

unit=corecast-podman.service
. ./checks.sh
# Podman's default profile has the shape of Docker's.
default=/usr/share/containers/seccomp.json
jq -f seccomp.jq $default >profile.json || fail "seccomp.jq cannot read $default"
podman load --quiet -i image.tar >/dev/null
podman tag "$(podman images --quiet | head -n 1)" corecast
cat >corecast.toml <<'TOML'
listen = ["0.0.0.0:8080"]
[auth]
mode = "open"
TOML
# As README has it, but for the network: NAT needs modules that the guest's kernel may lack. $1: the profile.
gateway() {
    podman run -d --name corecast --security-opt seccomp="$1" \
        --security-opt no-new-privileges --cap-drop ALL --read-only \
        --ulimit nofile=1048576:1048576 --ulimit memlock=8388608:8388608 \
        --stop-timeout 45 --network host -v corecast-run:/run/corecast \
        -v ./corecast.toml:/etc/corecast/corecast.toml:ro corecast >/tmp/started 2>&1 ||
        fail "podman run: $(cat /tmp/started)"
}
gone() { podman rm --force --time 0 corecast >/dev/null; }
# Without the network, as the program that pushes would be: its user, and the volume.
application() {
    podman run --rm --network none --cap-drop ALL --user "$1" -v "$2:/run/corecast" corecast "${@:3}"
}

gateway profile.json
eventually 'podman logs corecast 2>&1 | grep -q "ready"'
curl -sN 'http://127.0.0.1:8080/sse?topics=t' >/tmp/stream &
eventually 'grep -q ^retry /tmp/stream'
podman exec corecast corecast push --topic t hello | grep -q '1 connection' || fail "the push reached nobody"
eventually 'grep -q "^data: hello" /tmp/stream'
ok "with the profile of seccomp.jq it starts, and podman exec pushes to a client"
podman logs corecast 2>&1 | sed 's/^/     /'
application 65532:65532 corecast-run push --topic t beside | grep -q '1 connection' || fail "nothing from beside it"
eventually 'grep -q "^data: beside" /tmp/stream'
if application 65533:65533 corecast-run push --topic t foreign >/tmp/refused 2>&1; then fail "another user may push"; fi
ok "a container with the volume pushes as user 65532; as another it is told: $(head -n 1 /tmp/refused)"
podman exec corecast corecast check --connections 10000 >/tmp/check 2>&1 || [ $? = 1 ] || fail "$(cat /tmp/check)"
grep -q '^container.*podman' /tmp/check || fail "check does not see the container: $(cat /tmp/check)"
ok "podman exec corecast check --connections 10000:"
sed 's/^/     /' /tmp/check

began=$SECONDS
podman stop corecast >/dev/null
[ "$(podman inspect -f '{{.State.ExitCode}}' corecast)" = 0 ] || fail "podman stop: $(podman logs corecast 2>&1)"
# A drain tells an event stream when to come back.
[ "$(grep -c ^retry /tmp/stream)" = 2 ] || fail "the client was not told: $(cat /tmp/stream)"
podman logs corecast 2>&1 | grep -q 'drain begins' || fail "no drain: $(podman logs corecast 2>&1)"
ok "podman stop drains, status 0 after $((SECONDS - began)) s"
podman start corecast >/dev/null
eventually 'podman exec corecast corecast stats >/dev/null'
podman kill --signal KILL corecast >/dev/null
eventually '[ "$(podman inspect -f "{{.State.Running}}" corecast)" = false ]'
podman start corecast >/dev/null
eventually 'podman exec corecast corecast stats >/dev/null'
gone
ok "it starts again in the same volume, after a kill as well"

# What an emptyDir is with fsGroup 65532.
install -d -m 2777 -g 65532 /tmp/empty
podman run -d --name corecast --security-opt seccomp=profile.json --cap-drop ALL --read-only --network host \
    -v /tmp/empty:/run/corecast -v ./corecast.toml:/etc/corecast/corecast.toml:ro corecast >/dev/null
eventually 'podman exec corecast corecast stats >/dev/null'
application 65532:65532 /tmp/empty push --topic t beside >/dev/null || fail "nothing from beside it"
gone
ok "and in a directory as Kubernetes makes it, with the limits that Podman gives by itself"

# Docker's answer is EPERM, Podman's ENOSYS.
jq 'del(.defaultErrno) | .defaultErrnoRet = 1' $default >docker.json
for profile in docker.json $default; do
    gateway "$profile"
    status=$(podman wait corecast)
    podman logs corecast >/tmp/said 2>&1
    gone
    [ "$status" = 12 ] || fail "without io_uring: status $status: $(cat /tmp/said)"
    for part in 'seccomp filter (mode 2)' 'docker run --security-opt seccomp=' seccompProfile; do
        grep -qF "$part" /tmp/said || fail "without io_uring it does not say \"$part\": $(cat /tmp/said)"
    done
    ok "under a default profile it ends with status 12: $(head -n 1 /tmp/said)"
done
