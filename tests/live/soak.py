"""Five minutes of steady load: memory, descriptors and threads of the service must stay flat.

Scrapes once a second and takes a profile every 20 s, as a busy monitoring set-up would. The verdict
compares the last minute with the second one. The caches go on filling meanwhile, so what they say they
hold is taken off: what they hold and do not say is a growth like any other.
"""

import json
import re
import subprocess
import time

from service import ROOT, STREAMGATE, fail, free_port, get, wait_for_load

SECONDS = 300
# The allocator's slack on what the caches took meanwhile, some 130 MB, and the profiler's stacks.
MEMORY_GROWTH_BYTES = 96 << 20
BEYOND_CACHES = "process_resident_memory_bytes beyond the caches"


def reading(agent):
    page = get(f"{agent}/metrics")[2].decode()

    def value(name):
        found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
        return float(found.group(1)) if found else fail(f"{name} is not on the page")

    caches = re.findall(r"^cache_size_bytes\{[^}]*\} (\S+)$", page, re.MULTILINE)
    if not caches:
        fail("cache_size_bytes is not on the page")
    read = {name: value(name) for name in ["process_open_fds", "process_threads"]}
    read[BEYOND_CACHES] = value("process_resident_memory_bytes") - sum(map(float, caches))
    return read


def median(readings, name):
    return sorted(reading[name] for reading in readings)[len(readings) // 2]


def main():
    public, port = free_port(), free_port()
    agent = f"http://127.0.0.1:{port}"
    out = ROOT / "target" / "soak"
    demo = subprocess.Popen(
        [STREAMGATE, "demo", "--duration", f"{SECONDS}s", "--rate", "500", "--json"]
        + ["--public", f"127.0.0.1:{public}", "--agent", f"127.0.0.1:{port}"]
        + ["--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    early, late = [], []
    try:
        wait_for_load(agent)
        start = time.monotonic()
        profiled = start
        while demo.poll() is None and time.monotonic() - start < SECONDS - 10:
            now = time.monotonic() - start
            if time.monotonic() - profiled > 20:
                get(f"{agent}/debug/pprof/profile?seconds=2")
                profiled = time.monotonic()
            if 60 < now < 120:
                early.append(reading(agent))
            elif now > SECONDS - 70:
                late.append(reading(agent))
            time.sleep(1)
        stdout, _ = demo.communicate(timeout=180)
    finally:
        demo.kill()
    if demo.returncode != 0:
        fail(f"the demo ended with {demo.returncode}")
    seen = json.loads(stdout.decode().strip().splitlines()[-1])
    if seen["errors"] * 100 >= seen["requests"]:
        fail(f"{seen['errors']} errors under load")
    for name, slack in [
        (BEYOND_CACHES, MEMORY_GROWTH_BYTES),
        ("process_open_fds", 8),
        ("process_threads", 4),
    ]:
        before, after = median(early, name), median(late, name)
        print(f"{name}: {before:.0f} in the second minute, {after:.0f} in the last")
        if after > before + slack:
            fail(f"{name} grew by {after - before:.0f}, more than {slack}")
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
