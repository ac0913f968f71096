"""What all live tests need: the program, an address, a request, a failure."""

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
STREAMGATE = ROOT / "target" / "release" / "streamgate"


def fail(why):
    print(f"FAILED: {why}")
    sys.exit(1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, headers=None, timeout=60):
    request = urllib.request.Request(url, headers=headers or {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, headers, answer.read()


@contextlib.contextmanager
def demo(folder, seconds, rate):
    """A demo whose pictures go to the folder and whose words nobody hears; the port of its agent."""
    public, port = free_port(), free_port()
    process = subprocess.Popen(
        [STREAMGATE, "demo", "--duration", f"{seconds}s", "--rate", str(rate)]
        + ["--public", f"127.0.0.1:{public}", "--agent", f"127.0.0.1:{port}", "--out", folder],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def wait_for_load(agent):
    """Returns once the service has answered requests, not merely once it listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            table = json.loads(get(f"{agent}/targets")[2])
            if table["requests"] > 100:
                return
        except OSError:
            pass
        time.sleep(0.2)
    fail("the demo did not serve 100 requests within 60 s")
