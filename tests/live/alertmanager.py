"""Holds the labels of our own rules against our routing, in a real Alertmanager.

What fires is told to it as Prometheus would; what it says of each alert, whom it goes to and whether another
one silences it, is compared. Without Alertmanager it is a line `skipped: why`. Exits 1 with the reason.
"""

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request

from service import ROOT, fail, free_port, get

RULES = ROOT / "alerts" / "streamgate.rules.yml"
ROUTING = ROOT / "alerts" / "alertmanager.yml"
DEADLINE = 60
RECEIVERS = {"critical": "pager", "warning": "tickets", "info": "nobody", "none": "deadman"}


def rules():
    """Labels of each alert of the generated file, with those that its expression leaves."""
    found = []
    for block in re.split(r"^ *- (?=alert:|record:|name:)", RULES.read_text(), flags=re.MULTILINE):
        name = re.match(r"alert: (\S+)", block)
        if not name:
            continue
        given = re.search(r"^( +)labels:\n((?:\1 +\S.*\n)+)", block, re.MULTILINE)
        labels = dict(re.findall(r'(\w+): "?([^"\n]+)"?', given.group(2)))
        labels["alertname"] = name.group(1)
        if labels["severity"] != "none":
            labels["job"] = "streamgate"
        if "instance" in block and labels["alertname"] != "StreamGateDown":
            labels["instance"] = "a"
        found.append(labels)
    if len(found) < 40:
        fail(f"only {len(found)} alerts in {RULES}")
    return found


def tell(base, alerts):
    body = json.dumps([{"labels": labels} for labels in alerts]).encode()
    request = urllib.request.Request(
        f"{base}/api/v2/alerts", data=body, headers={"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def key(labels):
    return tuple(sorted(labels.items()))


def said(base):
    alerts = json.loads(get(f"{base}/api/v2/alerts")[2])
    return {
        key(alert["labels"]): (alert["status"]["state"], [to["name"] for to in alert["receivers"]])
        for alert in alerts
    }


def expect(what, alerts, silenced):
    """Tells a fresh Alertmanager what fires; `silenced` says which of it another one covers."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    wanted = {
        key(labels): ("suppressed" if silenced(labels) else "active", [RECEIVERS[labels["severity"]]])
        for labels in alerts
    }
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            ["prometheus-alertmanager", f"--config.file={ROUTING}", f"--storage.path={folder}"]
            + [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline, seen, told = time.monotonic() + DEADLINE, {}, False
        try:
            while seen != wanted:
                if time.monotonic() > deadline:
                    wrong = [(dict(k), v, seen.get(k)) for k, v in wanted.items() if seen.get(k) != v]
                    fail(f"{what}: wanted, seen: {wrong[:3]} of {len(wrong)}")
                try:
                    if not told:
                        tell(base, alerts)
                        told = True
                    seen = said(base)
                except OSError:
                    pass
                time.sleep(0.2)
        finally:
            server.kill()
            server.wait()
    count = sum(state == "suppressed" for state, _ in wanted.values())
    print(f"{what}: {len(wanted)} alerts, {count} of them silenced, each to its receiver")


def main():
    if not shutil.which("prometheus-alertmanager"):
        return print("skipped: no Alertmanager")
    every = rules()
    named = lambda *names: [labels for labels in every if labels["alertname"] in names]
    alone = lambda labels: False

    down = named("StreamGateDown", "Watchdog")
    expect("a page and nothing else", named("StreamGateNoTraffic", "Watchdog"), alone)
    expect("tickets and notes", [labels for labels in every if labels["severity"] in ("warning", "info")
           and labels["alertname"] != "StreamGateInstanceDown"], alone)

    paged = {"errors", "latency", "throughput"}
    no_down = [labels for labels in every if not labels["alertname"].endswith("Down")]
    expect("pages for three objectives", no_down,
           lambda labels: labels["severity"] in ("warning", "info") and labels.get("slo") in paged)

    others = [labels for labels in every if labels["severity"] != "none"]
    expect("the service is down", others + named("Watchdog"),
           lambda labels: labels["alertname"] not in ("StreamGateDown", "Watchdog"))
    expect("down alone", down, alone)

    covered = re.compile("StreamGate(CPU|Memory|DiskIO|Agent|SLIMissing|RuntimeStall)")
    instances = [labels for labels in every if "instance" in labels and labels["severity"] != "critical"]
    elsewhere = [{**labels, "instance": "b"} for labels in instances
                 if labels["alertname"] != "StreamGateInstanceDown"]
    expect("one of two instances is down", instances + elsewhere,
           lambda labels: labels["instance"] == "a" and bool(covered.match(labels["alertname"])))
    print("6 passed, 0 failed")


if __name__ == "__main__":
    main()
