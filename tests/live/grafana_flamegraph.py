"""Has Grafana's own component draw what the running demo answers Grafana.

npm's @grafana/flamegraph in a throw-away folder of 600 MB, bundled by esbuild, shown by Chromium; the picture is
target/grafana-flamegraph.png. Where npm or Chromium cannot be had it is a line `skipped: why`. Exits 1 with the
reason at the first thing that is not as promised.
"""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request

from npm import installed
from service import ROOT, demo, fail, wait_for_load

PAGE = ROOT / "tests" / "live" / "grafana_flamegraph"
PICTURE = ROOT / "target" / "grafana-flamegraph.png"
# One copy of React; fonts and icons of an editor that is not shown are nothing.
BUNDLE = (
    "page.jsx --bundle --outfile=bundle.js --jsx=automatic --loader:.svg=text --loader:.ttf=empty"
    " --alias:react=./node_modules/react --alias:react-dom=./node_modules/react-dom --log-level=error"
).split()
CHROMIUM = "chromium --headless --no-sandbox --disable-gpu --window-size=1540,900 --virtual-time-budget=20000"


def answer(agent):
    """The bars of the last fifteen seconds."""
    wait_for_load(agent)
    time.sleep(17)
    now = time.time_ns() // 1_000_000
    ask = {
        "profile_typeID": "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
        "label_selector": "{}",
        "start": str(now - 16_000),
        "end": str(now - 1_000),
    }
    request = urllib.request.Request(
        f"{agent}/querier.v1.QuerierService/SelectMergeStacktraces",
        json.dumps(ask).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read()


def shown(folder):
    """The page after it has been drawn, as text."""
    page = f"file://{folder}/index.html"
    command = [*CHROMIUM.split(), f"--user-data-dir={folder}/chromium"]
    picture = subprocess.run(
        [*command, f"--screenshot={PICTURE}", page], capture_output=True, timeout=180
    )
    result = subprocess.run([*command, "--dump-dom", page], capture_output=True, timeout=180)
    if picture.returncode or result.returncode:
        fail(f"Chromium: {(picture.stderr + result.stderr).decode()[-1000:]}")
    return result.stdout.decode()


def main():
    if not shutil.which("chromium"):
        print("skipped: no chromium")
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if not installed(PAGE, folder):
            return
        with demo(folder / "out", 60, 300) as port:
            answered = answer(f"http://127.0.0.1:{port}")
        (folder / "answer.json").write_bytes(answered)
        bundled = subprocess.run(
            [folder / "node_modules/.bin/esbuild", *BUNDLE, '--define:process.env.NODE_ENV="production"'],
            cwd=folder,
            capture_output=True,
            timeout=180,
        )
        if bundled.returncode:
            fail(f"esbuild: {bundled.stderr.decode()[-2000:]}")
        page = shown(folder)
    title = re.search(r"<title>(\d+) bars, (\d+) ns</title>", page)
    colours = re.search(r'data-colours="(\d+)"', page)
    if not title or not colours:
        fail(f"the page did not draw: {page[:500]}")
    bars, nanos, colours = int(title[1]), int(title[2]), int(colours[1])
    rows = set(re.findall(r">([^<>]*streamgate::[^<>]*)<", page.replace("&lt;", "‹").replace("&gt;", "›")))
    if bars < 100 or nanos <= 0 or colours < 8 or not rows:
        fail(f"{bars} bars of {nanos} ns in {colours} colours, {len(rows)} of our functions in the table")
    print(
        f"Grafana's own flame graph: {bars} bars of {nanos / 1e9:.2f} s in {colours} colours,"
        f" {len(rows)} of our functions in its table"
    )
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
