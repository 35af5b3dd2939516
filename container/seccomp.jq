# Docker's default seccomp profile and the three calls of io_uring, as one file that Docker, Podman, containerd and CRI-O
# all read.
#
#   curl -fsSL https://raw.githubusercontent.com/moby/profiles/main/seccomp/default.json |
#       jq -f container/seccomp.jq >corecast-seccomp.json        # on arm64: jq --arg arch arm64 -f
#
# Derived and not copied, so that it does not age here. Docker decides rule by rule, by capability, architecture and
# kernel; containerd overlooks those conditions and would allow mount and bpf to all. So they are decided here, for a
# container without any capability, on a kernel that is new enough for the gateway.
($ARGS.named.arch // "amd64") as $arch
| {
    amd64: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    arm64: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
  }[$arch] as $architectures
| if $architectures == null then error("arch is \($arch), known are amd64 and arm64") else . end
| if .defaultAction != "SCMP_ACT_ERRNO" then error("this is not Docker's default profile") else . end
| def holds_here:
    (.includes.caps // []) == []
    and ((.includes.arches // [$arch]) | index($arch)) != null
    and ((.excludes.arches // []) | index($arch)) == null;
  {
    defaultAction,
    defaultErrnoRet,
    architectures: $architectures,
    syscalls: (
      [.syscalls[] | select(holds_here) | del(.includes, .excludes, .comment)]
      + [{names: ["io_uring_setup", "io_uring_enter", "io_uring_register"], action: "SCMP_ACT_ALLOW"}]
    )
  }
