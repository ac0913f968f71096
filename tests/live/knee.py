"""How much StreamGate serves on one core, and what the agent takes of it.

The service is held on the first core and the load generator on the second. `knee` is the highest rate at
which P95 < 200 ms, errors < 1 % and CPU < 70 % of the core hold together; `fast` the highest with P95 below
20 ms and errors < 1 %, whatever the CPU; `stretch` the targets' second column at 5,000 requests a second.
`agent` compares the service with the agent fully on to the same program with it off (`serve
--unobserved`), in interleaved rounds: what each serves of a load that neither can serve, and P99 and CPU
at half of that.

Written down, never a gate: run it alone on the machine.

    python3 tests/live/knee.py [knee fast stretch agent]
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

from service import STREAMGATE, fail, free_port, get

SERVICE_CORE, GENERATOR_CORE = "0", "1"
TICKS = os.sysconf("SC_CLK_TCK")
CONTENTS = "100000"
WARM_SECONDS = 20
STEP_SECONDS = 5
ROUNDS = 7


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Service:
    """A service on its own core, warm."""

    def __init__(self, observed):
        self.public, self.port = free_port(), free_port()
        self.agent = f"http://127.0.0.1:{self.port}"
        command = ["taskset", "-c", SERVICE_CORE, STREAMGATE, "serve", "--contents", CONTENTS]
        command += ["--public", f"127.0.0.1:{self.public}", "--stop-notice", "0"]
        command += ["--agent", f"127.0.0.1:{self.port}"] if observed else ["--unobserved"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.wait()

    def wait(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                get(f"http://127.0.0.1:{self.public}/v1/content?limit=1")
                return
            time.sleep(0.2)
        self.process.kill()
        fail("the service did not answer within 120 s")

    def load(self, rate, seconds=STEP_SECONDS, connections=64):
        """The generator's report, with the service's CPU as a share of its core beside it."""
        command = ["taskset", "-c", GENERATOR_CORE, STREAMGATE, "bench", "--json", "--mix", "read"]
        command += ["--url", f"http://127.0.0.1:{self.public}", "--rate", str(rate)]
        command += ["--duration", f"{seconds}s", "--contents", CONTENTS]
        command += ["--connections", str(connections)]
        before, begin = cpu_seconds(self.process.pid), time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        used, took = cpu_seconds(self.process.pid) - before, time.monotonic() - begin
        report = json.loads(done.stdout.decode().strip().splitlines()[-1])
        report["service_cpu"] = used / took
        report["cpu_us"] = used * 1e6 / max(report["requests"], 1)
        report["error_ratio"] = report["errors"] / max(report["requests"], 1)
        return report

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)


def line(name, report):
    print(
        f"{name:<10}{report['rate']:>7}/s asked {report['rps']:>8.0f}/s served"
        f"  p50 {report['p50_ms']:.2f} p95 {report['p95_ms']:.2f} p99 {report['p99_ms']:.2f} ms"
        f"  errors {report['error_ratio']:.2%}  service {report['service_cpu']:.0%} of its core"
        f", {report['cpu_us']:.1f} us a request  generator {report['cpu_ratio']:.0%}"
        + (f"  VOID: {report['void_reason']}" if report["void"] else ""),
        flush=True,
    )


def highest(service, name, holds):
    """The highest rate that holds, within 3 %."""
    good, bad, rate = None, None, 2000
    while bad is None or bad / good["rate"] > 1.03:
        report = service.load(rate)
        line(name, report)
        if holds(report):
            good = report
        elif good is None:
            fail(f"{name}: not even {rate}/s holds")
        else:
            bad = rate
        low = good["rate"]
        rate = round(low * 1.4) if bad is None else round((low * bad) ** 0.5)
    print(f"{name}: {good['rate']}/s, p95 {good['p95_ms']:.2f} ms, CPU {good['service_cpu']:.0%}")


def at_knee(report):
    bad = report["p95_ms"] >= 200 or report["error_ratio"] >= 0.01 or report["service_cpu"] >= 0.7
    return not bad


def is_fast(report):
    return report["p95_ms"] < 20 and report["error_ratio"] < 0.01


def stretch(service):
    report = service.load(5000, seconds=20)
    line("stretch", report)
    print(json.dumps(json.loads(get(f"{service.agent}/targets")[2]), indent=1))


def compare():
    """Medians of the rounds' ratios, on over off."""
    services = {"on": Service(True), "off": Service(False)}
    try:
        for service in services.values():
            service.load(4000, seconds=WARM_SECONDS)
        rows = {"served": [], "p99_ms": [], "p50_ms": [], "cpu_us": []}
        for turn in range(ROUNDS):
            order = ["on", "off"] if turn % 2 == 0 else ["off", "on"]
            full = {}
            half = {}
            for which in order:
                full[which] = services[which].load(40000, seconds=4, connections=64)
            rate = round(min(report["rps"] for report in full.values()) / 2)
            for which in order:
                half[which] = services[which].load(rate, seconds=4)
                line(which, half[which])
            rows["served"].append(full["on"]["rps"] / full["off"]["rps"])
            for name in ["p50_ms", "p99_ms", "cpu_us"]:
                rows[name].append(half["on"][name] / half["off"][name])
        for name, ratios in rows.items():
            text = " ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
            print(f"agent on/off, {name}: median {statistics.median(ratios):.3f} of {text}")
    finally:
        for service in services.values():
            service.stop()


def main():
    wanted = sys.argv[1:] or ["knee", "fast", "stretch", "agent"]
    single = [name for name in wanted if name != "agent"]
    if single:
        service = Service(True)
        try:
            line("warm-up", service.load(4000, seconds=WARM_SECONDS))
            for name in single:
                if name == "stretch":
                    stretch(service)
                else:
                    highest(service, name, {"knee": at_knee, "fast": is_fast}[name])
        finally:
            service.stop()
    if "agent" in wanted:
        compare()


if __name__ == "__main__":
    main()
