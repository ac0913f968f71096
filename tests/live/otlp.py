"""Has examples/otlp push to a receiver that decodes with the official OpenTelemetry messages.

Metrics are held against scrapes of /metrics before and after them, by a reader of Prometheus's own. A slow
request must arrive with its lookup and its statement, a log record and an exemplar must name kept traces, and
a sample of a profile must link to one. Then the receiver refuses metrics for a while, and the counters must
say so to the last data point.
"""

import collections
import gzip
import http.server
import importlib
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import uuid

from peers import TOOLS, tools
from service import ROOT, STREAMGATE, fail, free_port, get

EXAMPLE = ROOT / "target" / "debug" / "examples" / "otlp"
COMPONENT = ("otel_component_type", "otlp_http_metric_exporter")
WAIT_SECONDS = 60
RETRY_AFTER_SECONDS = 3
# promtool takes no gauge that is called like a histogram's count; our page calls these so.
RENAMED = {
    "db.client.connection.count": "db_client_connections",
    "process.thread.count": "process_threads",
    "process.unix.file_descriptor.count": "process_unix_file_descriptors",
}
SUFFIXES = {"s": "_seconds", "By": "_bytes"}
# What a push tells of itself comes to the page when it is over.
OWN = ("otel_sdk_exporter_", "agent_last_success_", "agent_scrape_")

# Readings that do not change.
STILL = ["process_start_time_seconds", "process_max_fds", "tokio_workers", "agent_build_info"]
ORDERS = "shop_orders_total", frozenset({("shop_channel", "web")})

# Path, and what its messages are called.
TRACES, LOGS, PROFILES = "/v1/traces", "/v1/logs", "/v1development/profiles"
OTHERS = {
    TRACES: ("trace.v1.trace", "Trace"),
    LOGS: ("logs.v1.logs", "Logs"),
    PROFILES: ("profiles.v1development.profiles", "Profiles"),
}
SLOW_NANOS = 250_000_000

Sent = collections.namedtuple("Sent", "at headers message accepted")


class Receiver(http.server.ThreadingHTTPServer):
    """Takes messages on a port that was free, or refuses as many as it is told to."""

    def __init__(self, handler=None):
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.refusals = 0
        self.sent = queue.Queue()
        # Data points in messages that were taken, and in those that were refused.
        self.points = collections.Counter()
        # Messages of the other signals, by path.
        self.others = {path: [] for path in OTHERS}
        self.arrived = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def next(self, accepted):
        """The next message that was taken, or refused; those before it are passed over."""
        while True:
            try:
                sent = self.sent.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                fail(f"nothing was pushed within {WAIT_SECONDS} s")
            self.taken(sent)
            if sent.accepted == accepted:
                return sent

    def wait_for(self, path, find):
        """What `find` makes of all messages of a signal, as soon as that is something."""
        deadline = time.monotonic() + WAIT_SECONDS
        with self.arrived:
            while True:
                if found := find(self.others[path]):
                    return found
                if not self.arrived.wait(deadline - time.monotonic()):
                    fail(f"{len(self.others[path])} messages to {path}, none with what was looked for")

    def taken(self, sent):
        self.points[sent.accepted] += sum(1 for _ in points(sent.message))

    def drain(self):
        while not self.sent.empty():
            self.taken(self.sent.get())


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] != "gzip":
            fail(f"{self.path} {self.headers}")
        body = gzip.decompress(body)
        if self.path == "/v1/metrics":
            self.metrics(body)
        elif self.path in OTHERS:
            self.other(body)
        else:
            fail(f"{self.path} {self.headers}")

    def other(self, body):
        module, word = OTHERS[self.path]
        service = importlib.import_module(f"opentelemetry.proto.collector.{module}_service_pb2")
        message = getattr(service, f"Export{word}ServiceRequest").FromString(body)
        answer = getattr(service, f"Export{word}ServiceResponse")().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        with self.server.arrived:
            self.server.others[self.path].append(message)
            self.server.arrived.notify_all()

    def metrics(self, body):
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service

        message = service.ExportMetricsServiceRequest.FromString(body)
        accepted = self.server.refusals == 0
        answer = service.ExportMetricsServiceResponse().SerializeToString() if accepted else b"busy"
        self.send_response(200 if accepted else 429)
        if not accepted:
            self.server.refusals -= 1
            self.send_header("Retry-After", str(RETRY_AFTER_SECONDS))
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.server.sent.put(Sent(time.monotonic(), self.headers, message, accepted))

    def log_message(self, *_):
        pass


def metrics(message):
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def points(message):
    for metric in metrics(message):
        yield from getattr(metric, metric.WhichOneof("data")).data_points


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def page_name(metric):
    """The name in Prometheus: dots, the unit, what counts."""
    if metric.name in RENAMED:
        return RENAMED[metric.name]
    kind = metric.WhichOneof("data")
    total = kind == "sum" and metric.sum.is_monotonic
    name = metric.name.replace(".", "_")
    name = name.removesuffix("_total") if total else name
    suffix = "_ratio" if metric.unit == "1" and kind == "gauge" else SUFFIXES.get(metric.unit, "")
    name = name if name.endswith(suffix) else name + suffix
    return name + "_total" if total else name


def pushed(message):
    """Values by name and labels; of histograms their counts."""
    values = {}
    for metric in metrics(message):
        kind, name = metric.WhichOneof("data"), page_name(metric)
        for point in getattr(metric, kind).data_points:
            labels = attributes(point.attributes).items()
            labels = frozenset((key.replace(".", "_"), value) for key, value in labels)
            if kind == "histogram":
                if sum(point.bucket_counts) != point.count:
                    fail(f"{name} {labels}: the buckets hold not what it counts")
                key, value = f"{name}_count", point.count
            else:
                key, value = name, getattr(point, point.WhichOneof("value"))
            values[key, labels] = value
    return values


def scraped(agent):
    """The same of a page, and which of them only grow."""
    from prometheus_client.parser import text_string_to_metric_families

    values, grows = {}, set()
    for family in text_string_to_metric_families(get(f"{agent}/metrics")[2].decode()):
        for sample in family.samples:
            if sample.name == "target_info" or sample.name.startswith(OWN):
                continue
            key = sample.name, frozenset(sample.labels.items())
            if family.type == "histogram" and not sample.name.endswith("_count"):
                continue
            values[key] = sample.value
            if family.type in ("counter", "histogram"):
                grows.add(key)
    return values, grows


def compare(agent, receiver):
    receiver.next(accepted=True)
    before, grows = scraped(agent)
    receiver.drain()
    sent = receiver.next(accepted=True)
    values = pushed(sent.message)
    values = {key: value for key, value in values.items() if not key[0].startswith(OWN)}
    after, _ = scraped(agent)
    if lacks := before.keys() - values.keys():
        fail(f"not pushed: {sorted(map(str, lacks))[:10]}")
    if lacks := values.keys() - after.keys():
        fail(f"not on the page: {sorted(map(str, lacks))[:10]}")
    for key in grows:
        if not before[key] <= values[key] <= after[key]:
            fail(f"{key}: {before[key]} on the page, then {values[key]} pushed, then {after[key]}")
    still = [key for key in before.keys() - grows if key[0] in STILL]
    for key in still:
        if values[key] != before[key]:
            fail(f"{key}: {before[key]} on the page and {values[key]} pushed")
    if len(still) < len(STILL):
        fail(f"of {STILL} the page has only {still}")
    print(f"{len(values)} series pushed are those on the page: {len(grows)} totals and counts lie "
          f"between the scrapes before and after, {len(still)} readings that do not change are equal")
    return sent


def resource(sent, pid):
    seen = attributes(sent.message.resource_metrics[0].resource.attributes)
    wanted = {
        "service.name": "orders",
        "deployment.environment.name": "live test",
        "process.pid": pid,
        "process.executable.name": "otlp",
        "host.name": os.uname().nodename,
        "os.type": "linux",
        "telemetry.sdk.language": "rust",
        "telemetry.sdk.name": "streamgate-agent",
    }
    for key, value in wanted.items():
        if seen.get(key) != value:
            fail(f"resource attribute {key} is {seen.get(key)!r}, not {value!r}")
    if uuid.UUID(seen["service.instance.id"]).version != 4:
        fail(f"service.instance.id is {seen['service.instance.id']}")
    if sent.headers["X-Token"] != "a,b" or sent.headers["Content-Type"] != "application/x-protobuf":
        fail(f"headers: {sent.headers}")
    print(f"resource: {len(seen)} attributes, {len(wanted)} of them foretold")


def spans(messages):
    for message in messages:
        for resource in message.resource_spans:
            if attributes(resource.resource.attributes)["service.name"] != "orders":
                fail(f"whose spans are these? {resource.resource}")
            for scope in resource.scope_spans:
                yield from scope.spans


def slow_request(messages):
    """A slow request and its children, once all are there."""
    held = list(spans(messages))
    for root in held:
        took = root.end_time_unix_nano - root.start_time_unix_nano
        if root.name != "POST /orders/{item}" or took < SLOW_NANOS:
            continue
        children = {span.name: span for span in held if span.parent_span_id == root.span_id}
        if children.keys() != {"cache get prices l1", "INSERT orders"}:
            fail(f"below a slow request: {sorted(children)}")
        slow = children["INSERT orders"]
        if slow.trace_id != root.trace_id:
            fail(f"{slow} is below {root}, and of another trace")
        return root, slow
    return None


def traces(receiver):
    root, slow = receiver.wait_for(TRACES, slow_request)
    reason = attributes(root.attributes).get("keep.reason")
    took = [(span.end_time_unix_nano - span.start_time_unix_nano) // 1_000_000 for span in (root, slow)]
    if reason != "slow" or took[1] > took[0]:
        fail(f"keep.reason {reason}, {took} ms")
    print(f"traces: {root.name} of {took[0]} ms is kept for being {reason}, "
          f"with {slow.name} of {took[1]} ms and its lookup below it")


def kept(receiver):
    return {span.trace_id for span in spans(list(receiver.others[TRACES]))}


def logs(receiver):
    def first(messages):
        for message in messages:
            for record in message.resource_logs[0].scope_logs[0].log_records:
                if record.body.string_value == "order placed":
                    return record
        return None

    record = receiver.wait_for(LOGS, first)
    receiver.wait_for(TRACES, lambda _: record.trace_id in kept(receiver))
    print(f"logs: {record.severity_text} {record.body.string_value!r} of a trace that is kept")


def exemplars(agent, receiver):
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    page = get(f"{agent}/metrics", accept)[2].decode()
    named = {bytes.fromhex(trace) for trace in re.findall(r'# \{trace_id="([0-9a-f]{32})"', page)}
    if not named:
        fail("no exemplar on the page")
    receiver.wait_for(TRACES, lambda _: named <= kept(receiver))
    print(f"exemplars: all {len(named)} traces that the page names were pushed")


def profiles(receiver):
    def linked(messages):
        for message in messages:
            table = message.dictionary
            for resource in message.resource_profiles:
                for profile in resource.scope_profiles[0].profiles:
                    links = [table.link_table[sample.link_index] for sample in profile.samples]
                    ids = {link.trace_id for link in links if any(link.trace_id)}
                    if ids & kept(receiver):
                        unit = table.string_table[profile.sample_type.type_strindex]
                        total = sum(sum(sample.values) for sample in profile.samples)
                        return unit, total, len(ids), len(ids & kept(receiver))
        return None

    unit, total, ids, held = receiver.wait_for(PROFILES, linked)
    print(f"profiles: {total} {unit}, linked to {ids} traces, {held} of them kept")


def exported(agent):
    """Points by their error_type, as the page counts them."""
    from prometheus_client.parser import text_string_to_metric_families

    counted = {}
    for family in text_string_to_metric_families(get(f"{agent}/metrics")[2].decode()):
        for sample in family.samples:
            if sample.name == "otel_sdk_exporter_metric_data_point_exported_total":
                if COMPONENT not in sample.labels.items():
                    fail(f"whose is {sample}?")
                counted[sample.labels.get("error_type", "")] = sample.value
    return counted


def outage(agent, receiver):
    receiver.refusals = 2
    first, second = receiver.next(accepted=False), receiver.next(accepted=False)
    back = receiver.next(accepted=True)
    for earlier, later in [(first, second), (second, back)]:
        # The answer takes a moment too, so it is never less.
        if later.at - earlier.at < RETRY_AFTER_SECONDS - 0.1:
            waited = later.at - earlier.at
            fail(f"asked to wait {RETRY_AFTER_SECONDS} s, it came back after {waited:.2f} s")
    orders = [pushed(sent.message)[ORDERS] for sent in (first, back)]
    if not orders[0] < orders[1]:
        fail(f"the push after the outage lacks what was counted in it: {orders}")
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        receiver.drain()
        told = exported(agent)
        if told == {"": receiver.points[True], "429": receiver.points[False]}:
            break
        if time.monotonic() > deadline:
            fail(f"the agent counts {told}, and the receiver {receiver.points}")
        time.sleep(0.1)
    waits = f"{second.at - first.at:.1f} and {back.at - second.at:.1f} s"
    print(f"outage: 429 twice, it came back after {waits} with {orders[1]} orders, {orders[0]} before; "
          f"data points by error_type as the receiver counts them: {told}")


def variables(receiver=None, **more):
    """An environment that names a receiver, or none."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    if receiver is None:
        return clean
    endpoint = f"http://127.0.0.1:{receiver.server_port}"
    return {**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "orders", **more}


def shop(receiver, **more):
    """The example, pushing to a receiver, and its agent's address."""
    env = variables(receiver, **more)
    command = [EXAMPLE, "127.0.0.1:0"]
    example = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    return example, example.stdout.readline().strip().rstrip("/")


def streamgate(env):
    """A small service, its agent's address, and what one request for a content answers."""
    public, agent = free_port(), free_port()
    command = [STREAMGATE, "serve", "--public", f"127.0.0.1:{public}", "--agent", f"127.0.0.1:{agent}"]
    command += ["--users", "10", "--contents", "100", "--stop-notice", "0"]
    service = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            listed = json.loads(get(f"http://127.0.0.1:{public}/v1/content?limit=1")[2])
            get(f"http://127.0.0.1:{public}/v1/content/{listed['items'][0]['id']}")
            return service, f"http://127.0.0.1:{agent}"
        except OSError:
            if time.monotonic() > deadline:
                service.kill()
                fail(f"StreamGate does not answer within {WAIT_SECONDS} s")
            time.sleep(0.1)


def service(receiver):
    """StreamGate pushes where the environment names a collector, and has no thread for it elsewhere."""

    def content(messages):
        held = list(spans(messages))
        for root in held:
            if root.name == "GET /v1/content/{id}":
                return sorted(span.name for span in held if span.parent_span_id == root.span_id)
        return None

    for env in (variables(receiver), variables()):
        process, agent = streamgate(env)
        try:
            page = get(f"{agent}/metrics")[2].decode()
            pushes = 'agent_up{component="deliver"}' in page
            if pushes != ("OTEL_EXPORTER_OTLP_ENDPOINT" in env):
                fail(f"StreamGate {'pushes' if pushes else 'does not push'}, with {env}")
            if pushes:
                below = receiver.wait_for(TRACES, content)
                if not any(name.startswith("cache get") for name in below) or len(below) < 2:
                    fail(f"below StreamGate's request: {below}")
                print(f"StreamGate: GET /v1/content/{{id}} with {below} below it")
        finally:
            process.kill()
    print("StreamGate: without the variable nothing is pushed")


def main():
    receiver = Receiver()
    example, agent = shop(
        receiver,
        OTEL_EXPORTER_OTLP_HEADERS="x-token=a%2Cb",
        OTEL_METRIC_EXPORT_INTERVAL="1000",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=live%20test",
    )
    try:
        resource(compare(agent, receiver), example.pid)
        traces(receiver)
        logs(receiver)
        exemplars(agent, receiver)
        profiles(receiver)
        outage(agent, receiver)
        last_seen = scraped(agent)[0][ORDERS]
        receiver.drain()
        example.send_signal(signal.SIGINT)
        out = example.communicate(timeout=WAIT_SECONDS)[0].splitlines()
    finally:
        example.kill()
    if not receiver.sent.qsize():
        fail("nothing was pushed at the end")
    orders = pushed(list(receiver.sent.queue)[-1].message)[ORDERS]
    if example.returncode != 0 or out[-1] != "stopped; still running: []" or orders < last_seen:
        pushed_last = f"{orders} of {last_seen} orders pushed"
        fail(f"the example ended with {example.returncode}, {out[-1:]}, {pushed_last}")
    if not any('error_type="429"' in line for line in out):
        fail(f"the example did not say that a push was in vain: {out}")
    service(Receiver())
    print(f"Ctrl-C: the last push holds {orders} orders, {last_seen} of them on the last page")
    print("1 passed, 0 failed")


if __name__ == "__main__":
    if pathlib.Path(sys.prefix) == TOOLS:
        main()
    elif env := tools():
        python = env / "bin" / "python"
        os.execv(python, [python, __file__])
