"""Asks a real Prometheus, which scrapes the demo under load, every question of every dashboard.

Each query must give data, with the labels that its legend names, and ratios within reason; what has none here is
named with its reason. The tiles are compared with the agent's own table of targets. Without Prometheus it is a line
`skipped: why`. Exits 1 with everything that is not as promised.
"""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse

from service import ROOT, demo, fail, free_port, get, wait_for_load

SECONDS = 100
# The agent's table looks at a minute, and so do the rules below.
GATHERED = 75
INTERVAL = "15s"

# What a demo with SQLite on one instance cannot show, by a part of the query, and why.
WITHOUT_DATA = {
    'http_response_status_code=~"5.."': "nothing fails",
    "http_server_requests_shed_total": "nothing is turned away",
    "http_server_response_aborted_total": "no client leaves",
    'cache_level="l2"': "no Redis",
    'cache_level="l3"': "no edge",
    "cache_invalidation_lag_seconds": "one instance hears nobody",
    "cache_flushes_total": "one instance loses no message",
    "cache_coalesced_requests_total": "two readers seldom miss together",
    "db_client_slow_queries_total": "nothing is slow",
    "db_client_connection_timeouts_total": "a connection is always free",
    "streamgate_index_scans_total": "PostgreSQL only",
    "streamgate_archive_rows_total": "the archiver runs by the hour",
    "streamgate_archive_oldest_age_seconds": "nothing is a year old",
    "container_cpu_throttled_seconds_total": "no quota",
    "pressure_stall_seconds_total": "a kernel without PSI has none",
    "worker_pool_jobs_total": "no job was asked for",
    "agent_profile_lost_samples_total": "nothing was lost",
    "agent_http_denied_total": "nobody was refused",
    "agent_queue_bytes": "no collector",
    "agent_dropped_total": "no collector",
    "agent_last_success_timestamp_seconds": "no collector",
    "http_server_requests_per_connection": "no connection has ended",
    "ALERTS{": "nothing but the watchdog fires, which has no job",
}

# Tiles by the first word of their title, and the agent's names. P95 is left out: the table knows it to a few
# percent, a histogram of Prometheus by its bounds, of which the lowest is 5 ms.
TILES = {"CPU": "cpu", "Memory": "memory", "Errors": "error_ratio", "Cache hits": "cache_hit", "Served": "throughput"}


def panels(board):
    for panel in board["panels"]:
        yield from [panel] if panel["type"] != "row" else panel["panels"]


def filled_in(expr):
    values = {"$__rate_interval": INTERVAL, "$job": "streamgate", "$instance": ".+"}
    for name, value in values.items():
        expr = expr.replace(name, value)
    return expr


def of_a_minute(rules):
    """Over what the agent's table looks at: the load lasts no five minutes, and a rate over more reads low."""
    return rules.replace("[5m]", "[1m]")


class Prometheus:
    """A server of its own that scrapes one agent each second and evaluates our rules, changed and often."""

    def __init__(self, folder, agent_port, changed):
        self.port = free_port()
        rules = changed((ROOT / "alerts" / "streamgate.rules.yml").read_text())
        (folder / "rules.yml").write_text(re.sub(r"interval: \w+", "interval: 2s", rules))
        (folder / "prometheus.yml").write_text(
            "global: { scrape_interval: 1s, evaluation_interval: 2s }\n"
            f"rule_files: [{folder}/rules.yml]\n"
            "scrape_configs:\n  - job_name: streamgate\n"
            f"    static_configs: [{{ targets: ['127.0.0.1:{agent_port}'] }}]\n"
        )
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
            + [f"--web.listen-address=127.0.0.1:{self.port}", "--enable-feature=exemplar-storage"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        return json.loads(get(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}")[2])["data"]

    def series(self, expr):
        return self.ask("query", query=expr)["result"]

    def stop(self):
        self.process.kill()
        self.process.wait()


def reason(expr):
    return next((why for part, why in WITHOUT_DATA.items() if part in expr), None)


def check(panel, target, prometheus):
    """What is wrong with a query, and whether it had data."""
    expr = filled_in(target["expr"])
    place = f"{panel['title']}: {expr}"
    series = prometheus.series(expr)
    values = [float(one["value"][1]) for one in series]
    if not values or all(value != value for value in values):
        return ([] if reason(expr) else [f"no data: {place}"]), False
    wrong = []
    for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
        if not any(label in one["metric"] for one in series):
            wrong.append(f"no label {label}: {place}")
    if panel["fieldConfig"]["defaults"]["unit"] == "percentunit":
        if not all(value != value or 0 <= value <= 1.5 for value in values):
            wrong.append(f"no ratio, {values}: {place}")
    return wrong, True


def tiles(prometheus, agent):
    """The tiles beside what the agent's own table says at the same moment."""
    rows = {row["name"]: row for row in json.loads(get(f"{agent}/targets")[2])["rows"]}
    board = json.loads((ROOT / "dashboards" / "streamgate-overview.json").read_text())
    wrong, seen = [], []
    for panel in panels(board):
        name = TILES.get(panel["title"].split(",")[0])
        if panel["type"] != "stat" or not name or rows[name]["current"] is None:
            continue
        shown = float(prometheus.series(filled_in(panel["targets"][0]["expr"]))[0]["value"][1])
        told = rows[name]["current"]
        seen.append(f"{name} {shown:.4g} beside {told:.4g}")
        if abs(shown - told) > 0.05 * max(shown, told):
            wrong.append(f"the tile of {name} says {shown}, the agent {told}")
    print("tiles beside /targets:", ", ".join(seen))
    return wrong


def main():
    if not shutil.which("prometheus"):
        return print("skipped: no Prometheus")
    with tempfile.TemporaryDirectory() as folder, demo(folder, SECONDS, 500) as port:
        agent = f"http://127.0.0.1:{port}"
        prometheus = None
        try:
            wait_for_load(agent)
            begin = time.monotonic()
            prometheus = Prometheus(pathlib.Path(folder), port, of_a_minute)
            while time.monotonic() - begin < GATHERED:
                time.sleep(1)
            wrong, asked, empty = [], 0, []
            for file in sorted((ROOT / "dashboards").glob("*.json")):
                for panel in panels(json.loads(file.read_text())):
                    for target in panel["targets"]:
                        if "expr" not in target:
                            continue
                        found, had_data = check(panel, target, prometheus)
                        asked += 1
                        wrong += found
                        if not had_data:
                            empty.append(f"{panel['title']} ({reason(target['expr'])})")
            up = prometheus.ask("targets")["activeTargets"]
            wrong += [f"not up: {one['scrapeUrl']}" for one in up if one["health"] != "up"]
            exemplars = prometheus.ask(
                "query_exemplars",
                query="http_server_request_duration_seconds_bucket",
                start=time.time() - GATHERED,
                end=time.time(),
            )
            if not exemplars:
                wrong.append("no exemplar of a latency")
            wrong += tiles(prometheus, agent)
        finally:
            if prometheus:
                prometheus.stop()
    if wrong:
        fail("\n".join(wrong))
    print(f"{asked} queries: {asked - len(empty)} with data; without: {'; '.join(sorted(set(empty)))}")
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
