"""Breaks the service on command, and looks which alerts a real Prometheus fires: those of the fault, no others.

The rules are the committed ones with every window, wait and warm-up shortened by this program. After each fault all
must be silent again. Without Prometheus it is a line `skipped: why`. Exits 1 with the reason.
"""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request

from dashboards import Prometheus
from service import ROOT, STREAMGATE, fail, free_port, get, wait_for_load

# What each switch fires, on a service that reads 300 contents.
FAULTS = {
    "error_rate=5%": {"ErrorBudgetBurn", "ErrorRateAboveTarget"},
    "latency=+300ms": {"LatencyBudgetBurn", "LatencyP95AboveTarget"},
    "l1_off": {"CacheHitRatioLow", "CacheHitRatioOverallLow"},
    "block_worker=50ms": {"RuntimeStall"},
}
WINDOWS = {"5m": "10s", "10m": "10s", "15m": "10s", "30m": "12s", "1h": "15s", "2h": "15s", "6h": "20s", "1d": "20s", "3d": "25s"}
DEADLINE = 120
# Longer than the longest window and the longest wait, so that what is wrongly about to fire has fired.
SETTLED = 45
TOKEN = "a-token-of-this-test"


def shortened(rules):
    rules = re.sub(r"\[(\w+)\]", lambda found: f"[{WINDOWS[found[1]]}]", rules)
    rules = re.sub(r"\bfor: \w+", "for: 4s", rules)
    # The warm-up of caches.
    return re.sub(r"(process_start_time_seconds\S*\)) > \d+", r"\1 > 5", rules)


def firing(prometheus):
    found = prometheus.series('ALERTS{alertstate="firing",alertname!="Watchdog"}')
    return {one["metric"]["alertname"].removeprefix("StreamGate") for one in found}


def until(prometheus, wanted, what):
    deadline, seen = time.monotonic() + DEADLINE, None
    while time.monotonic() < deadline:
        seen = firing(prometheus)
        if seen == wanted:
            return
        time.sleep(1)
    fail(f"{what}: wanted {sorted(wanted)}, firing {sorted(seen)}")


def stays(prometheus, wanted, what):
    end = time.monotonic() + SETTLED
    while time.monotonic() < end:
        strange = firing(prometheus) - wanted
        if strange:
            fail(f"{what}: fires {sorted(strange)} too")
        time.sleep(1)


def switch(admin, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin}/admin/faults",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()


def main():
    if not shutil.which("prometheus"):
        return print("skipped: no Prometheus")
    public, agent, admin = free_port(), free_port(), free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "token").write_text(TOKEN)
        data = ["--users", "50", "--contents", "300"]
        serve = [STREAMGATE, "serve", "--public", f"127.0.0.1:{public}", "--agent", f"127.0.0.1:{agent}"]
        serve += ["--admin", f"127.0.0.1:{admin}", "--admin-token-file", folder / "token"]
        bench = [STREAMGATE, "bench", "--url", f"http://127.0.0.1:{public}", "--rate", "200", "--mix", "read"]
        prometheus = None
        try:
            running.append(subprocess.Popen(serve + data, **quiet))
            while True:
                try:
                    get(f"http://127.0.0.1:{agent}/readyz")
                    break
                except OSError:
                    if running[0].poll() is not None:
                        fail("the service ended")
                    time.sleep(0.2)
            running.append(subprocess.Popen(bench + data + ["--duration", "30m"], **quiet))
            wait_for_load(f"http://127.0.0.1:{agent}")
            prometheus = Prometheus(folder, agent, shortened)
            time.sleep(SETTLED)
            until(prometheus, set(), "a healthy service")
            stays(prometheus, set(), "a healthy service")
            print("a healthy service: nothing fires")
            for fault, wanted in FAULTS.items():
                switch(admin, {"on": [fault], "seconds": 600})
                until(prometheus, wanted, fault)
                stays(prometheus, wanted, fault)
                switch(admin, {"off": [fault.split("=")[0]]})
                until(prometheus, set(), f"after {fault}")
                print(f"{fault}: {', '.join(sorted(wanted))}; then nothing")
        finally:
            if prometheus:
                prometheus.stop()
            for process in reversed(running):
                process.kill()
                process.wait()
    print(f"{len(FAULTS) + 1} passed, 0 failed")


if __name__ == "__main__":
    main()
