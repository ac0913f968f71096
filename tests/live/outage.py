"""Has a collector go away from examples/otlp for so many seconds, in three ways at once.

`outage.py 10`, or `outage.py 60 600`: each length has a shop of its own for each way. One collector's port is
closed, one accepts and never answers, one says 503 with Retry-After. The shop numbers its orders, so a lost span
or log record is a gap: none may be there once the collector is back. While it is away the agent's counters must
add up, its queue stay below its bound, and the process grow by no more than that.
"""

import concurrent.futures
import os
import pathlib
import re
import signal as signals
import socket
import sys
import threading
import time

from otlp import LOGS, RETRY_AFTER_SECONDS, TRACES, Handler, Receiver, attributes, shop, spans
from peers import TOOLS, tools
from service import fail, get

WAYS = ["closed port", "silence", "503"]
QUEUE_BYTES = 32 << 20
# Beside three queues, what the allocator and the recorder of CPU samples may take meanwhile.
GROWTH_BYTES = 48 << 20
# The longest pause before the first attempt that succeeds, 30 s, and time to send what has waited.
BACK_SECONDS = 90
# Those who order from far away take 300 ms: of the last few one may still be under way.
UNDER_WAY = 6

SHOPS = []


class Away(Handler):
    """Takes everything while the collector is there."""

    def setup(self):
        super().setup()
        with self.server.arrived:
            self.server.open.add(self.connection)

    def finish(self):
        with self.server.arrived:
            self.server.open.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def do_POST(self):
        away = self.server.away
        if away is None:
            return super().do_POST()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.refused.append((self.path, time.monotonic()))
        if away == "503":
            self.send_response(503)
            self.send_header("Retry-After", str(RETRY_AFTER_SECONDS))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.server.back.wait()
            self.close_connection = True


class Collector(Receiver):
    def __init__(self):
        self.open, self.refused = set(), []
        self.away, self.back = None, threading.Event()
        super().__init__(Away)

    def handle_error(self, *_):
        """A client that was cut off says nothing of ours."""

    def leaves(self, way):
        self.away = way
        if way != "closed port":
            return
        # It is as before a start: nobody listens, and no connection is left over.
        self.shutdown()
        self.socket.close()
        with self.arrived:
            for connection in self.open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def returns(self):
        way, self.away = self.away, None
        self.back.set()
        if way == "closed port":
            self.socket = socket.socket(self.address_family, self.socket_type)
            self.server_bind()
            self.server_activate()
            threading.Thread(target=self.serve_forever, daemon=True).start()

    def server_bind(self):
        # The port it had, once it had one.
        if getattr(self, "server_port", None):
            self.server_address = ("127.0.0.1", self.server_port)
        super().server_bind()


def numbers(page, name):
    """Values of a family's lines, by the first label's value that tells them apart."""
    lines = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", page, re.MULTILINE)
    return [(labels, float(value)) for labels, value in lines]


def books(agent, signal):
    """Items created, delivered, queued and dropped, and bytes that wait."""
    page = get(f"{agent}/metrics")[2].decode()
    word = signal.rstrip("s")
    created = sum(value for _, value in numbers(page, f"otel_sdk_processor_{word}_processed_total"))
    exported = numbers(page, f"otel_sdk_exporter_{word}_exported_total")
    delivered = sum(value for labels, value in exported if 'error_type=""' in labels
                    or "error_type" not in labels)
    dropped = sum(value for _, value in exported) - delivered

    def of_signal(name):
        mine = f'signal="{signal}"'
        return sum(value for labels, value in numbers(page, name) if mine in labels)

    return created, delivered, of_signal("agent_queue_items"), dropped, of_signal("agent_queue_bytes")


def add_up(agent, signal):
    """The books of a moment in which nothing is counted just then."""
    deadline = time.monotonic() + 30
    while True:
        seen = created, delivered, queued, dropped, _ = books(agent, signal)
        if created == delivered + queued + dropped:
            return seen
        if time.monotonic() > deadline:
            fail(f"{signal}: {created} created are not {delivered} + {queued} + {dropped}")
        time.sleep(0.1)


def ordered(collector):
    """Numbers of the orders whose span has arrived, and of those whose log record has."""
    path = re.compile(r"^/orders/(\d+)$")
    with collector.arrived:
        traces, logs = list(collector.others[TRACES]), list(collector.others[LOGS])
    found = [path.match(attributes(span.attributes).get("url.path", "")) for span in spans(traces)]
    records = [record for message in logs for resource in message.resource_logs
               for scope in resource.scope_logs for record in scope.log_records]
    said = [attributes(record.attributes)["item"] for record in records
            if record.body.string_value == "order placed"]
    return [int(match[1]) for match in found if match], [int(item) for item in said]


def resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10


def outage(way, seconds):
    collector = Collector()
    example, agent = shop(collector)
    SHOPS.append(example)
    try:
        # Its threads and connections are there, and something has arrived.
        collector.wait_for(TRACES, lambda messages: messages)
        collector.wait_for(LOGS, lambda messages: messages)
        before = resident(example.pid)
        began = time.monotonic()
        collector.leaves(way)
        most = 0
        while (left := began + seconds - time.monotonic()) > 0:
            time.sleep(min(left, 2))
            most = max(most, resident(example.pid))
            for signal in ("spans", "logs"):
                waits = books(agent, signal)[4]
                if waits > QUEUE_BYTES:
                    fail(f"{way}, {seconds} s: {waits} bytes of {signal} wait")
        waiting = {}
        for signal in ("spans", "logs"):
            _, _, queued, dropped, _ = waiting[signal] = add_up(agent, signal)
            if dropped or not queued:
                fail(f"{way}, {seconds} s: of {signal} {dropped} dropped and {queued} waiting")
        if most - before > GROWTH_BYTES:
            fail(f"{way}, {seconds} s: the process grew by {most - before} bytes")
        collector.returns()
        page = get(f"{agent}/metrics")[2].decode()
        last = int(sum(value for _, value in numbers(page, "shop_orders_total"))) - UNDER_WAY
        deadline = time.monotonic() + BACK_SECONDS
        while True:
            seen = ordered(collector)
            lacks = [sorted(set(range(1, last + 1)) - set(those)) for those in seen]
            if lacks == [[], []]:
                break
            if time.monotonic() > deadline:
                fail(f"{way}, {seconds} s: of {last} orders no span of {lacks[0][:9]}, "
                     f"no log record of {lacks[1][:9]}")
            time.sleep(0.5)
        took = time.monotonic() - began - seconds
        dropped = [add_up(agent, signal)[3] for signal in ("spans", "logs")]
        if any(dropped):
            fail(f"{way}, {seconds} s: {dropped} dropped")
        if way == "503":
            for path in (TRACES, LOGS):
                at = [at for where, at in collector.refused if where == path]
                hasty = [later - earlier for earlier, later in zip(at, at[1:])
                         if later - earlier < RETRY_AFTER_SECONDS - 0.1]
                if hasty:
                    fail(f"{path} was asked to wait {RETRY_AFTER_SECONDS} s and came after {hasty}")
        twice = len(seen[0]) - len(set(seen[0]))
        print(f"{way} for {seconds} s: {waiting['spans'][2]:.0f} spans and {waiting['logs'][2]:.0f} "
              f"log records waited in {(waiting['spans'][4] + waiting['logs'][4]) / 1024:.0f} KiB, "
              f"all {last} orders had arrived {took:.0f} s after, {twice} twice; dropped 0; "
              f"memory {(most - before) / 2**20:+.1f} MiB", flush=True)
    finally:
        example.kill()


def ended(*_):
    """Whoever is told to end takes its shops along."""
    for example in SHOPS:
        example.kill()
    os._exit(1)


def main():
    signals.signal(signals.SIGTERM, ended)
    lengths = [int(text) for text in sys.argv[1:]] or [10]
    each = [(way, seconds) for seconds in lengths for way in WAYS]
    with concurrent.futures.ThreadPoolExecutor(len(each)) as pool:
        running = [pool.submit(outage, *one) for one in each]
        for one in concurrent.futures.as_completed(running):
            one.result()
    print(f"{len(each)} passed, 0 failed")


if __name__ == "__main__":
    if pathlib.Path(sys.prefix) == TOOLS:
        main()
    elif env := tools():
        python = env / "bin" / "python"
        os.execv(python, [python, __file__, *sys.argv[1:]])
