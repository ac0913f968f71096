"""Asks the running demo for profiles as Grafana does, by a client of Connect that is not ours.

Peers: npm's @connectrpc/connect in a throw-away folder, in both encodings. Where npm cannot be had it is
a line `skipped: why`. Exits 1 with the reason at the first thing that is not as promised.
"""

import pathlib
import re
import subprocess
import tempfile
import time

from npm import installed
from service import ROOT, demo, fail, get, wait_for_load

CLIENT = ROOT / "tests" / "live" / "grafana"
SECONDS = 60
# Seconds of samples at 19 Hz; what is asked for lies within them.
GATHERED = 15
# Samples that this asks for at least: each journey of the load is then among them.
SAMPLES = 60


def recorded(agent):
    """Samples that the profiler has taken so far."""
    page = get(f"{agent}/metrics")[2].decode()
    line = r'^agent_profile_samples_total\{kind="cpu",result="recorded"\} (\S+)$'
    found = re.search(line, page, re.MULTILINE)
    return float(found.group(1)) if found else fail("the page has no count of CPU samples")


def ask(agent, folder):
    wait_for_load(agent)
    begin, first = time.monotonic(), recorded(agent)
    while time.monotonic() - begin < GATHERED or recorded(agent) - first < SAMPLES:
        if time.monotonic() - begin > SECONDS - 10:
            fail(f"{recorded(agent) - first:.0f} samples in {SECONDS - 10} s of load")
        time.sleep(0.5)
    now = time.time_ns() // 1_000_000
    lasted = int(time.monotonic() - begin)
    span = [str(now - (lasted - 1) * 1000), str(now - 2000)]
    result = subprocess.run(
        ["node", "client.mjs", agent, *span], cwd=folder, capture_output=True, timeout=120
    )
    if result.returncode:
        fail(f"the client of Connect:\n{result.stderr.decode()[-3000:]}")
    print(f"Connect's own client, protobuf and JSON: {result.stdout.decode().strip()}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        if not installed(CLIENT, pathlib.Path(folder)):
            return
        with demo(folder, SECONDS, 300) as port:
            ask(f"http://127.0.0.1:{port}", folder)
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
