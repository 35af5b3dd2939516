"""Stops one thread: python3 freeze.py TID SECONDS. Says "frozen", then lets it go again.

ptrace(2), because a signal stops a process whole and cgroups are not everywhere to be had."""
import ctypes, os, sys, time

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) != 0:
        sys.exit(f"ptrace {request:#x} of {thread}: {os.strerror(ctypes.get_errno())}")


thread, seconds = int(sys.argv[1]), float(sys.argv[2])
ptrace(PTRACE_SEIZE, thread)
ptrace(PTRACE_INTERRUPT, thread)
os.waitpid(thread, WALL)
print("frozen", flush=True)
time.sleep(seconds)
ptrace(PTRACE_DETACH, thread)
