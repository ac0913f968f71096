"""What jemalloc's decay times and background thread change in StreamGate: memory, CPU, latency.

Settings take turns, round by round (`decay.py ROUNDS`, 3 by default). Each turn is a process of its own
on a fresh copy of one database: a burst to warm up, then bursts with pauses between, each followed by a
look at its end and one when its pause is over; at last uploads alone and a purge. CPU is that of
burst and pause together, since what a setting puts off is done in the pause. Printed are medians;
nothing passes or fails, except that a setting has to hold. Figures count only on a machine that does
nothing else.

A burst is the load of a demo and, beside it, uploads that are all under way at once, which is what makes
memory that is freed afterwards. Their last row is bad, so that they are read and taken apart but change
nothing: each burst finds the same database.
"""

import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
import uuid

from service import ROOT, STREAMGATE, fail, free_port, get

FOLDER = ROOT / "target" / "decay"
USERS, CONTENTS = 5_000, 20_000
# A load that leaves half of the machine idle, and so the latencies to the service.
RATE = 1_500
WARM_UP_SECONDS, BURST_SECONDS, PAUSE_SECONDS = 2, 3, 5
BURSTS = 2
UPLOADS, UPLOAD_ROWS, ROW_BYTES = 24, 999, 3_900
# (background_thread, dirty_decay_ms); jemalloc's own choice comes first.
SETTINGS = [("false", 10_000), ("true", 10_000), ("true", 1_000), ("true", 0)]


def upload():
    """Just below the 4 MiB and the 1,000 rows that a batch may have."""
    row = {"user_id": str(uuid.UUID(int=1)), "title": "upload", "body": "x" * ROW_BYTES}
    return json.dumps({"items": [row] * UPLOAD_ROWS + [{}]}).encode()


UPLOAD = upload()


class Service:
    """`streamgate serve` on a database, under one setting of jemalloc's."""

    def __init__(self, database, setting):
        background, dirty = setting
        conf = f"background_thread:{background},dirty_decay_ms:{dirty},muzzy_decay_ms:0"
        self.public = f"127.0.0.1:{free_port()}"
        address = f"127.0.0.1:{free_port()}"
        self.agent = f"http://{address}"
        self.process = subprocess.Popen(
            [STREAMGATE, "serve", "--public", self.public, "--agent", address, "--control"]
            + ["--database", database, "--users", str(USERS), "--contents", str(CONTENTS)]
            + ["--stop-notice", "0"],
            env={**os.environ, "_RJEM_MALLOC_CONF": conf},
            stderr=subprocess.DEVNULL,
        )

    def wait_until_ready(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if get(f"{self.agent}/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        fail("the service was not ready within 60 s")

    def holds(self, setting):
        background, dirty = setting
        seen = json.loads(get(f"{self.agent}/debug/heap/tuning")[2])
        decay = {"new_arenas": dirty, "arenas": [dirty]}
        wanted = {"background_thread": background == "true", "dirty_decay_ms": decay}
        for name, value in wanted.items():
            if seen[name] != value:
                fail(f"{name} is {seen[name]} where {value} was asked for")

    def rss(self):
        """MiB, added up page by page: `VmRSS` lags behind by some pages a thread."""
        rollup = open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii").read()
        return int(re.search(r"^Rss:\s+(\d+) kB$", rollup, re.MULTILINE).group(1)) / 1024

    def cpu_and_resident(self):
        """CPU seconds so far, and MiB that jemalloc holds in memory."""
        page = get(f"{self.agent}/metrics")[2].decode()

        def value(series):
            return float(re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE).group(1))

        resident = value('allocator_bytes{allocator="jemalloc",kind="resident"}')
        return value("process_cpu_seconds_total"), resident / (1 << 20)

    def load(self, seconds):
        """The load, and uploads at its start, once a second and at its end."""
        load = subprocess.Popen(
            [STREAMGATE, "bench", "--json", "--url", f"http://{self.public}"]
            + ["--duration", f"{seconds}s", "--rate", str(RATE)]
            + ["--users", str(USERS), "--contents", str(CONTENTS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(seconds):
            self.uploads()
            time.sleep(1)
        out, _ = load.communicate(timeout=60)
        self.uploads()
        report = json.loads(out.decode().splitlines()[-1])
        if report["errors"]:
            fail(f"{report['errors']} errors under load: {report['errors_by_kind']}")
        if report["void"]:
            print(f"note: a load does not count: {report['void_reason']}")
        return report

    def uploads(self):
        """All wait for their last byte before any is answered."""
        under_way = [http.client.HTTPConnection(self.public, timeout=30) for _ in range(UPLOADS)]
        for connection in under_way:
            connection.putrequest("POST", "/v1/content:batch")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(UPLOAD)))
            connection.endheaders(UPLOAD[:-1])
        for connection in under_way:
            connection.send(UPLOAD[-1:])
        for connection in under_way:
            answer = connection.getresponse()
            answer.read()
            if answer.status != 422:
                fail(f"an upload is answered {answer.status}")
            connection.close()

    def purge(self):
        request = urllib.request.Request(
            f"{self.agent}/debug/heap/tuning",
            data=b'{"purge":true}',
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def burst(service):
    cpu, _ = service.cpu_and_resident()
    report = service.load(BURST_SECONDS)
    at_end = service.rss()
    _, resident_at_end = service.cpu_and_resident()
    time.sleep(PAUSE_SECONDS)
    later = service.rss()
    cpu_later, resident_later = service.cpu_and_resident()
    return {
        "RSS at the end, MiB": at_end,
        f"RSS {PAUSE_SECONDS} s later": later,
        "resident at the end, MiB": resident_at_end,
        f"resident {PAUSE_SECONDS} s later": resident_later,
        "CPU s per 1000 requests": (cpu_later - cpu) / report["requests"] * 1000,
        "P95, ms": report["p95_ms"],
    }


def turn(seeded, setting):
    """One process: what its bursts showed, and what its purge did."""
    folder = FOLDER / "turn"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seeded.parent, folder)
    service = Service(folder / seeded.name, setting)
    try:
        service.wait_until_ready()
        service.load(WARM_UP_SECONDS)
        service.holds(setting)
        bursts = [burst(service) for _ in range(BURSTS)]
        service.uploads()
        before = service.rss()
        service.purge()
        purged = {"RSS before a purge, MiB": before, "RSS after it": service.rss()}
        service.holds(setting)
    finally:
        service.stop()
    return bursts, purged


def table(title, readings):
    """Medians of each setting's readings, with the least and the most of them."""
    names = list(readings[SETTINGS[0]][0])
    print(f"\n{title}\n")
    print("| background thread, dirty decay |", " | ".join(names), "|")
    print("|---" * (len(names) + 1) + "|")
    for setting in SETTINGS:
        background, dirty = setting
        cells = []
        for name in names:
            values = [reading[name] for reading in readings[setting]]
            digits = 2 if name.startswith("CPU") else 1
            middle, least, most = (
                f"{value:.{digits}f}"
                for value in (statistics.median(values), min(values), max(values))
            )
            cells.append(f"{middle} ({least}–{most})")
        print(f"| {'on' if background == 'true' else 'off'}, {dirty} ms |", " | ".join(cells), "|")


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    shutil.rmtree(FOLDER, ignore_errors=True)
    seeded = FOLDER / "seeded" / "streamgate.db"
    seeded.parent.mkdir(parents=True)
    service = Service(seeded, SETTINGS[0])
    try:
        service.wait_until_ready()
    finally:
        service.stop()
    bursts = {setting: [] for setting in SETTINGS}
    purges = {setting: [] for setting in SETTINGS}
    for number in range(rounds):
        # Another one first in each round, so that none always follows the same.
        first = number % len(SETTINGS)
        for setting in SETTINGS[first:] + SETTINGS[:first]:
            seen, purged = turn(seeded, setting)
            bursts[setting] += seen
            purges[setting].append(purged)
    shutil.rmtree(FOLDER)
    print(f"An upload is of {len(UPLOAD) / (1 << 20):.1f} MiB.")
    kind = f"{RATE} requests/s for {BURST_SECONDS} s, {UPLOADS} uploads at once"
    table(f"{rounds} rounds of {BURSTS} bursts: {kind}", bursts)
    table("A purge right after the last uploads", purges)


if __name__ == "__main__":
    main()
