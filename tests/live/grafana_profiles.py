"""Asks the running demo for profiles as Grafana does, by a client of Connect that is not ours.

Peers: npm's @connectrpc/connect in a throw-away folder, in both encodings. Where npm cannot be had it is
a line `skipped: why`. Exits 1 with the reason at the first thing that is not as promised.
"""

import pathlib
import shutil
import subprocess
import tempfile
import time

from service import ROOT, STREAMGATE, fail, free_port, wait_for_load

CLIENT = ROOT / "tests" / "live" / "grafana"
SECONDS = 60
# Of samples at 19 Hz; what is asked for lies within them.
GATHERED = 15


def installed(folder):
    """Whether npm could put the client's packages into a folder."""
    if not shutil.which("node") or not shutil.which("npm"):
        print("skipped: no node or npm")
        return False
    for path in CLIENT.iterdir():
        shutil.copy(path, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    result = subprocess.run(command, cwd=folder, capture_output=True, timeout=300)
    if result.returncode:
        print(f"skipped: npm could not install the client ({result.stderr.decode()[-200:].strip()!r})")
    return result.returncode == 0


def ask(agent, folder):
    wait_for_load(agent)
    time.sleep(GATHERED)
    now = time.time_ns() // 1_000_000
    span = [str(now - (GATHERED - 2) * 1000), str(now - 2000)]
    result = subprocess.run(
        ["node", "client.mjs", agent, *span], cwd=folder, capture_output=True, timeout=120
    )
    if result.returncode:
        fail(f"the client of Connect:\n{result.stderr.decode()[-3000:]}")
    print(f"Connect's own client, protobuf and JSON: {result.stdout.decode().strip()}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        if not installed(pathlib.Path(folder)):
            return
        public, port = free_port(), free_port()
        demo = subprocess.Popen(
            [STREAMGATE, "demo", "--duration", f"{SECONDS}s", "--rate", "300"]
            + ["--public", f"127.0.0.1:{public}", "--agent", f"127.0.0.1:{port}", "--out", folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            ask(f"http://127.0.0.1:{port}", folder)
        finally:
            demo.kill()
            demo.wait()
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
