"""The guest's side of million.sh: installs, tunes, holds, pushes, drains, restarts, and prints a table.

Every figure is read from outside the gateway: /proc, its own counters over the control socket, and the report of
corecast-bench. Ends with status 1 where a promise is broken; `checks` has each with what was found.
"""

import http.client
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import time

CONNECTIONS = int(sys.argv[1])
UNICASTS = 10_000
HOLD_S = 300
OUT = pathlib.Path(os.environ.get("OUT", "/tmp"))
CONTROL = "/run/corecast/control.sock"
# 16 bytes of user and one topic, as in the memory figure of bench/run.
URL = "ws://127.0.0.1:8080/ws?user=user-{{number:11}}&topics=news"
CONFIGURATION = """\
listen = ["127.0.0.1:8080"]
[limits]
# All from one host, as fast as they come.
connects_per_second = 0
[timeouts]
# Every client is pinged once in the time they are held.
heartbeat = "HEARTBEAT"
heartbeat_max = "1h"
# The guest has one emulated CPU for both ends: what takes seconds elsewhere takes minutes.
pong = "2m"
send = "2m"
handshake = "2m"
drain = "10m"
""".replace("HEARTBEAT", os.environ.get("MILLION_HEARTBEAT", "5m"))

rows, checks = [], []


def say(text):
    print(f"[{time.monotonic() - began:7.1f} s] {text}", flush=True)


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, capture_output=True, **options).stdout


def row(what, value):
    rows.append((what, value))
    say(f"{what}: {value}")


def check(what, holds, found):
    checks.append((what, holds, found))
    say(f"{'ok  ' if holds else 'FAIL'} {what}: {found}")


class Control(http.client.HTTPConnection):
    """The control socket, spoken to as curl would."""

    def __init__(self):
        super().__init__("localhost", timeout=1800)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(CONTROL)


def ask(method, path, body=None, kind="application/json"):
    control = Control()
    control.request(method, path, body, {"Content-Type": kind} if body is not None else {})
    answer = control.getresponse()
    text = answer.read()
    control.close()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]}")
    return json.loads(text)


def totals():
    return ask("GET", "/v1/stats")["totals"]


def unit(name):
    return run("systemctl", "show", "--value", "-p", name, "corecast.service").strip()


def process_bytes(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    tables = re.search(r"VmPTE:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    return int(re.search(r"Rss:\s+(\d+)", text)[1]) * 1024, int(tables[1]) * 1024


def slab():
    """Live objects and object size by cache."""
    lines = pathlib.Path("/proc/slabinfo").read_text().splitlines()[2:]
    return {c[0]: (int(c[1]), int(c[3])) for c in (line.split() for line in lines)}


def free_bytes():
    text = pathlib.Path("/proc/meminfo").read_text()
    return int(re.search(r"MemFree:\s+(\d+)", text)[1]) * 1024


def cpu_s(pids):
    """CPU time of these processes until now, the kernel's work for them included."""
    stats = (pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split() for pid in pids)
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


class Reading:
    """What the machine and both processes hold at one moment, with so many clients."""

    def __init__(self, gateway, tool=None):
        self.at = time.monotonic()
        self.clients = totals()["connections"]
        self.gateway, self.gateway_tables = process_bytes(gateway)
        self.tool, self.tool_tables = map(sum, zip(*(process_bytes(pid) for pid in tool))) if tool else (0, 0)
        self.free, self.slab = free_bytes(), slab()
        between = totals()["connections"]
        # While they still connect: the middle of before and after.
        self.clients = (self.clients + between) / 2


def tool_pids(parent):
    """The tool's workers are children of its coordinator."""
    text = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [parent] + [int(pid) for pid in text.split()]


def install():
    # dpkg, because the guest has no network for apt to look at.
    run("dpkg", "-i", "/guest/in/corecast.deb", env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    run("corecast", "tune", "--connections", str(CONNECTIONS), "--apply")
    pathlib.Path("/etc/corecast/corecast.toml").write_text(CONFIGURATION)
    run("systemctl", "restart", "corecast.service")
    version, kernel = run("corecast", "version").splitlines()[0], os.uname().release
    row("machine", f"{version}, Linux {kernel}, {os.cpu_count()} CPU, systemd {run('systemctl', '--version').split()[1]}")


def ready_ms():
    started, active = (int(unit(name)) for name in ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic"))
    return (active - started) / 1000


def hold(tool, log, before):
    """Waits until all are up; readings at a tenth, a half and the whole."""
    pid, rates, spent = int(unit("MainPID")), [], []
    marks = [CONNECTIONS // 10, CONNECTIONS // 2]
    readings = []
    while True:
        now = totals()
        rates.append((time.monotonic(), now["connections"]))
        spent.append((cpu_s([pid]), cpu_s(tool_pids(tool.pid)), now["pings"], now["connections"]))
        if marks and now["connections"] >= marks[0]:
            marks.pop(0)
            readings.append(Reading(pid, tool_pids(tool.pid)))
        if now["connections"] >= CONNECTIONS:
            break
        if tool.poll() is not None:
            raise RuntimeError(f"corecast-bench has ended: {log.read_text()[-2000:]}")
        time.sleep(0.5)
    readings.append(settled(pid, tool))
    for reading in readings:
        describe(reading, before)
    check("the gateway's memory is flat (at most 10 % above the 128 B of bench/run)",
          (readings[-1].gateway - before.gateway) / CONNECTIONS <= 128 * 1.1,
          ", ".join(f"{(reading.gateway - before.gateway) / reading.clients:.0f}" for reading in readings) + " B")
    tenths = [rate_between(rates, tenth / 10, (tenth + 1) / 10) for tenth in range(10)]
    first, last = tenths[0], tenths[-1]
    row("connects a second, over all", f"{rate_between(rates, 0.0, 1.0):,.0f}")
    row("of each tenth", ", ".join(f"{rate:,.0f}" for rate in tenths))
    row("of each tenth: CPU of the gateway and of the tool, µs a connect; heartbeats", by_tenths(spent))
    # Heartbeats of those who are there take the same CPU: with more than one to ten connects it is their rate too.
    if spent[-1][2] > CONNECTIONS / 10:
        row("connect rate, last tenth of first, beside heartbeats (MILLION_HEARTBEAT=1h: without)", f"{last / first:.2f}")
    else:
        check("the connect rate is flat (last tenth at least 0.9 of the first)", last >= 0.9 * first, f"{last / first:.2f}")
    explain(readings[-1], before)
    return readings


def settled(pid, tool):
    """A reading when the processes no longer move."""
    reading = Reading(pid, tool_pids(tool.pid))
    while True:
        time.sleep(5)
        again = Reading(pid, tool_pids(tool.pid))
        if abs(again.free - reading.free) < 4 << 20:
            return again
        reading = again


def rate_between(rates, low, high):
    """Connects a second between these shares of all."""
    return (high - low) * CONNECTIONS / (time_at(rates, high) - time_at(rates, low))


def by_tenths(spent):
    """What either end spent in each tenth of the connects, and how many were pinged meanwhile."""
    told = []
    for tenth in range(10):
        first, last = (next(sample for sample in spent if sample[3] >= share * CONNECTIONS / 10) for share in (tenth, tenth + 1))
        connects = max(last[3] - first[3], 1)
        gateway, tool = ((last[end] - first[end]) * 1e6 / connects for end in (0, 1))
        told.append(f"{gateway:.0f} + {tool:.0f} ({last[2] - first[2]:,})")
    return ", ".join(told)


def time_at(rates, share):
    """When so many of all were up, interpolated between two samples."""
    wanted = share * CONNECTIONS
    for (then, fewer), (now, more) in zip(rates, rates[1:]):
        if more >= wanted and more > fewer:
            return then + (now - then) * max(wanted - fewer, 0) / (more - fewer)
    return rates[-1][0]


def describe(reading, before):
    each = lambda now, then: (now - then) / reading.clients
    row(
        f"at {reading.clients:,.0f}: gateway, machine (both ends and the tool), B each",
        f"{each(reading.gateway, before.gateway):.0f}, {each(before.free, reading.free):,.0f}",
    )


def explain(reading, before):
    """What the machine spent, by what it went to: caches of one object are split between the ends by name."""
    server = client = 0.0
    # The waiting of either end; everything else that grows by two objects a connection is one each.
    ours, theirs = ("io_kiocb",), ("ep_head", "eventpoll_epi", "eventpoll_pwq", "tcp_bind_bucket", "tcp_bind2_bucket")
    parts = []
    for name, (objects, size) in reading.slab.items():
        each = (objects - before.slab.get(name, (0, size))[0]) / reading.clients
        if abs(each) * size < 4:
            continue
        share = 1.0 if name.startswith(ours) else 0.0 if name.startswith(theirs) else 0.5
        server += each * size * share
        client += each * size * (1 - share)
        parts.append(f"{name} {each:.2f} x {size}")
    row("kernel objects a connection, both ends", ", ".join(parts))
    gateway = (reading.gateway - before.gateway + reading.gateway_tables - before.gateway_tables) / reading.clients
    # A descriptor is a pointer in the table of open files, which doubles: 2 ** 20 of 8 bytes and three bitmaps.
    table = (1 << (int(reading.clients) - 1).bit_length()) * 8.4 / reading.clients
    tool = (reading.tool + reading.tool_tables) / reading.clients
    spent = (before.free - reading.free) / reading.clients
    known = server + client + gateway + tool + 2 * table
    row("server's end: kernel objects, descriptor table, gateway, B each", f"{server:,.0f}, {table:.0f}, {gateway:.0f}")
    row("client's end: kernel objects, descriptor table, tool, B each", f"{client:,.0f}, {table:.0f}, {tool:.0f}")
    row("server's end in all, B each", f"{server + table + gateway:,.0f}")
    off = known / spent - 1
    check("what the machine spent is explained to within 5 %", abs(off) <= 0.05, f"{known:,.0f} of {spent:,.0f} B, {off:+.1%}")


def heartbeats():
    before, began_at = totals(), time.monotonic()
    while time.monotonic() - began_at < HOLD_S + 20:
        time.sleep(10)
    now = totals()
    pings, pongs = now["pings"] - before["pings"], now["pongs"] - before["pongs"]
    row(f"pings and pongs in {HOLD_S + 20} s", f"{pings:,}, {pongs:,}")
    missed = now["closed"]["heartbeat_missed"]
    check("every client was pinged, has answered, and none is lost", min(pings, pongs) >= CONNECTIONS and missed == 0 and now["connections"] == CONNECTIONS,
          f"{missed} missed, {now['connections']:,} connected")


def broadcast():
    before, began_at = totals(), time.monotonic()
    answer = ask("POST", "/v1/push", json.dumps({"to": {"topic": "news"}, "data": "to all of you"}))
    answered = time.monotonic() - began_at
    while totals()["delivered"] < before["delivered"] + CONNECTIONS and time.monotonic() - began_at < 900:
        time.sleep(0.5)
    row("broadcast to all: answered after, written after", f"{answered:.2f} s, {time.monotonic() - began_at:.1f} s")
    check("the broadcast was handed to every one", answer["connections"] == CONNECTIONS, f"{answer['connections']:,}")


def unicasts():
    chosen = random.Random(7).choices(range(CONNECTIONS), k=UNICASTS)
    lines = "".join(json.dumps({"to": {"user": f"user-{number:011}"}, "data": "to you"}) + "\n" for number in chosen)
    before, began_at = totals(), time.monotonic()
    answer = ask("POST", "/v1/push", lines, "application/x-ndjson")
    while totals()["delivered"] < before["delivered"] + UNICASTS and time.monotonic() - began_at < 300:
        time.sleep(0.1)
    row(f"{UNICASTS:,} pushes to random users", f"{time.monotonic() - began_at:.1f} s until all were written")
    check("all were accepted", (answer["accepted"], answer["refused"]) == (UNICASTS, 0), answer["accepted"])


def restart():
    """The service restarts, which drains; everybody is told when to come back, and does."""
    began_at = time.monotonic()
    run("systemctl", "restart", "corecast.service")
    row("restart: the drain and the start, start to ready", f"{time.monotonic() - began_at:.0f} s, {ready_ms():.0f} ms")
    check("ready within 1 s of the start, with clients waiting", ready_ms() < 1000, f"{ready_ms():.0f} ms")


def report_of(tool, path):
    """It ends once everybody is back."""
    began_at = time.monotonic()
    while tool.poll() is None and time.monotonic() - began_at < 3000:
        time.sleep(20)
        say(f"{totals()['connections']:,} are back")
    status = tool.wait(timeout=1)
    told = json.loads(path.read_text())
    back = {name: told["times"]["reconnect"][name] / 1e6 for name in ("p50", "p99", "max")}
    row("back after: median, p99, last", f"{back['p50']:.0f} s, {back['p99']:.0f} s, {back['max']:.0f} s, told to spread over 600 s")
    row("what the clients met", ", ".join(f"{what} {count:,}" for what, count in sorted(told["outcomes"].items())))
    check("everybody is back", told["open"] == CONNECTIONS, f"{told['open']:,}")
    check("no connect was refused over the restart", told["outcomes"].get("error refused", 0) == 0, told["outcomes"].get("error refused", 0))
    messages = told["totals"]["messages"]
    check("as many messages arrived as were sent", messages == CONNECTIONS + UNICASTS, f"{messages:,}")
    check("corecast-bench is content", status == 0, told["verdict"]["text"])


def main():
    install()
    row("start to ready", f"{ready_ms():.0f} ms")
    check("ready within 1 s", ready_ms() < 1000, f"{ready_ms():.0f} ms")
    pid = int(unit("MainPID"))
    before = Reading(pid)
    log, report = OUT / "tool.log", OUT / "tool.json"
    # It waits for the restart from 5 s after all are up on.
    # Attempts fail by design until the old process has gone: they are told when to come again. `report_of` looks at what
    # counts, that everybody is back.
    arguments = ["storm", URL, "-c", str(CONNECTIONS), "--by-server", "40m", "--back-off", "as-told", "--timeout", "5m",
                 "--connecting", "512", "--for", "5s", "--tolerate", "25%", "--json", str(report)]
    with log.open("w") as stderr:
        tool = subprocess.Popen(["prlimit", "--nofile=1048576", "corecast-bench", *arguments],
                                stdout=stderr, stderr=stderr)
    hold(tool, log, before)
    if os.environ.get("MILLION_UNTIL") == "held":
        tool.terminate()
        return
    heartbeats()
    broadcast()
    unicasts()
    row("service memory after it all", f"{int(unit('MemoryCurrent')) / CONNECTIONS:,.0f} B each (MemoryCurrent, its kernel part included)")
    restart()
    report_of(tool, report)


began = time.monotonic()
try:
    main()
finally:
    print("\n| what | value |\n|---|---|")
    for what, value in rows:
        print(f"| {what} | {value} |")
    print("\n| promise | held | found |\n|---|---|---|")
    for what, holds, found in checks:
        print(f"| {what} | {'yes' if holds else 'NO'} | {found} |")
sys.exit(0 if all(holds for _, holds, _ in checks) else 1)
