"""Measures what an outage of the collector does to StreamGate's requests. A measurement, not a gate.

Four services side by side, each loaded in its turn, round after round: one that pushes nothing, and three that
keep and push every request's trace, whose collectors take everything, are not there, and accept without ever
answering. The last two are loaded first until their queues are full. `latency.py 9` makes nine rounds.
"""

import http.server
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time

from service import STREAMGATE, fail, free_port, get

USERS, CONTENTS = 1_000, 20_000
FILL = ["--rate", "2000", "--duration", "14s"]
ROUND = ["--rate", "500", "--duration", "4s"]
QUANTILES = ["p50_ms", "p99_ms"]


class Takes(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def taking():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Takes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def silent():
    """The kernel accepts, and nobody reads."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    return listener, listener.getsockname()[1]


class Service:
    def __init__(self, name, collector):
        self.name = name
        self.public, agent = free_port(), free_port()
        self.agent = f"http://127.0.0.1:{agent}"
        self.measured = {quantile: [] for quantile in QUANTILES}
        env = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        if collector:
            env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector}"
        self.process = subprocess.Popen(
            [STREAMGATE, "serve", "--public", f"127.0.0.1:{self.public}", "--agent", f"127.0.0.1:{agent}",
             "--users", str(USERS), "--contents", str(CONTENTS), "--stop-notice", "0"],
            env=env,
            stderr=subprocess.DEVNULL,
        )

    def load(self, options):
        result = subprocess.run(
            [STREAMGATE, "bench", "--url", f"http://127.0.0.1:{self.public}", "--users", str(USERS),
             "--contents", str(CONTENTS), "--json", *options],
            capture_output=True,
            text=True,
        )
        if not result.stdout.strip():
            fail(f"{self.name}: {result.stderr}")
        seen = json.loads(result.stdout.strip().splitlines()[-1])
        if seen["errors"]:
            fail(f"{self.name}: {seen['errors_by_kind']}")
        return seen

    def round(self):
        seen = self.load(ROUND)
        for quantile in QUANTILES:
            self.measured[quantile].append(seen[quantile])

    def spans(self):
        page = get(f"{self.agent}/metrics")[2].decode()
        wanted = r"^((?:otel_sdk_processor_span|otel_sdk_exporter_span|agent_queue_|agent_dropped).*) (\S+)$"
        lines = re.findall(wanted, page, re.MULTILINE)
        return [f"{name} {value}" for name, value in lines if "span" in name]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    listener, silence = silent()
    services = [
        Service("pushes nothing", None),
        Service("collector takes all", taking()),
        Service("port closed", free_port()),
        Service("accepts, never answers", silence),
    ]
    try:
        for service in services:
            wait_for_ready(service)
        for service in services:
            service.load(FILL if service in services[2:] else ROUND)
        for turn in range(rounds):
            # Each is first as often as any other.
            place = turn % len(services)
            for service in services[place:] + services[:place]:
                service.round()
        print(f"{rounds} rounds of {' '.join(ROUND)} each\n")
        print("| collector | P50 ms | P99 ms | P99 of the rounds |\n|---|---|---|---|")
        for service in services:
            p50, p99 = (service.measured[quantile] for quantile in QUANTILES)
            spread = ", ".join(f"{value:.2f}" for value in sorted(p99))
            print(f"| {service.name} | {statistics.median(p50):.3f} | {statistics.median(p99):.2f} | {spread} |")
        for service in services[1:]:
            print(f"\n{service.name}:", *service.spans(), sep="\n")
    finally:
        for service in services:
            service.process.kill()
        listener.close()


def wait_for_ready(service):
    for _ in range(600):
        try:
            if get(f"{service.agent}/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    fail(f"{service.name} is not ready within 60 s")


if __name__ == "__main__":
    main()
