"""Has examples/otlp push by gRPC to a server of gRPC's own, with the official OpenTelemetry messages.

All four signals must arrive and decode. The first call with spans is answered UNAVAILABLE with a RetryInfo, which
must be heeded, and what the agent says it delivered at its end must be what the server took.
"""

import importlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures

from peers import TOOLS, tools
from service import ROOT, fail

EXAMPLE = ROOT / "target" / "debug" / "examples" / "otlp"
WAIT_SECONDS = 60
RETRY_SECONDS = 2
SIGNALS = {
    "metrics": ("metrics.v1", "metrics_service", "Metrics"),
    "spans": ("trace.v1", "trace_service", "Trace"),
    "logs": ("logs.v1", "logs_service", "Logs"),
    "profiles": ("profiles.v1development", "profiles_service", "Profiles"),
}


def field(number, content):
    """A message within a message."""
    return bytes([number << 3 | 2, len(content)]) + content


def retry_info(seconds):
    """A google.rpc.Status with a google.rpc.RetryInfo."""
    info = field(1, bytes([8, seconds]))
    detail = field(1, b"type.googleapis.com/google.rpc.RetryInfo") + field(2, info)
    return bytes([8, 14]) + field(3, detail)


class Receiver:
    """Takes every call but the first with spans."""

    def __init__(self):
        import grpc

        self.grpc = grpc
        self.messages = {word: [] for word in SIGNALS}
        self.headers = {}
        self.span_calls = []
        self.arrived = threading.Condition()
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        for word, (package, module, name) in SIGNALS.items():
            service = importlib.import_module(
                f"opentelemetry.proto.collector.{package}.{module}_pb2"
            )
            answer = getattr(service, f"Export{name}ServiceResponse")
            method = grpc.unary_unary_rpc_method_handler(
                lambda message, context, word=word, answer=answer: self.call(
                    word, message, context, answer
                ),
                request_deserializer=getattr(service, f"Export{name}ServiceRequest").FromString,
                response_serializer=answer.SerializeToString,
            )
            full = f"opentelemetry.proto.collector.{package}.{name}Service"
            handler = grpc.method_handlers_generic_handler(full, {"Export": method})
            self.server.add_generic_rpc_handlers((handler,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def call(self, word, message, context, answer):
        with self.arrived:
            self.headers[word] = dict(context.invocation_metadata())
            if word == "spans":
                self.span_calls.append(time.monotonic())
                if len(self.span_calls) == 1:
                    details = retry_info(RETRY_SECONDS)
                    context.set_trailing_metadata((("grpc-status-details-bin", details),))
                    context.abort(self.grpc.StatusCode.UNAVAILABLE, "later")
            self.messages[word].append(message)
            self.arrived.notify_all()
        return answer()

    def wait(self, word, count):
        deadline = time.monotonic() + WAIT_SECONDS
        with self.arrived:
            while len(self.messages[word]) < count:
                if not self.arrived.wait(deadline - time.monotonic()):
                    fail(f"{len(self.messages[word])} messages of {word} within {WAIT_SECONDS} s")


def items(word, messages):
    for message in messages:
        if word == "spans":
            groups = (scope.spans for of in message.resource_spans for scope in of.scope_spans)
        else:
            groups = (scope.log_records for of in message.resource_logs for scope in of.scope_logs)
        for group in groups:
            yield from group


def main():
    receiver = Receiver()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    example = subprocess.Popen(
        [EXAMPLE, "127.0.0.1:0"],
        env={
            **clean,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.port}",
            "OTEL_EXPORTER_OTLP_HEADERS": "X-Token=a%2Cb",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for word, count in [("metrics", 2), ("spans", 3), ("logs", 1), ("profiles", 1)]:
            receiver.wait(word, count)
        example.send_signal(signal.SIGINT)
        out = example.communicate(timeout=WAIT_SECONDS)[0]
    finally:
        example.kill()
    if example.returncode != 0 or "stopped; still running: []" not in out:
        fail(f"the example ended with {example.returncode}: {out[-500:]}")
    for word, headers in receiver.headers.items():
        if headers["x-token"] != "a,b" or not headers["user-agent"].startswith("OTel-OTLP-Exporter-Rust/"):
            fail(f"{word}: {headers}")
    waited = receiver.span_calls[1] - receiver.span_calls[0]
    if waited < RETRY_SECONDS - 0.1:
        fail(f"asked to wait {RETRY_SECONDS} s, it came back after {waited:.2f} s")
    ids = [span.span_id for span in items("spans", receiver.messages["spans"])]
    if len(set(ids)) != len(ids):
        fail(f"{len(ids) - len(set(ids))} of {len(ids)} spans came twice")
    lost = re.findall(r'signal: "(\w+)".*?lost: (\d+)', out)
    if not lost or any(count != "0" for _, count in lost):
        fail(f"lost at the stop: {lost} in {out[-500:]}")
    counts = {word: len(messages) for word, messages in receiver.messages.items()}
    records = sum(1 for _ in items("logs", receiver.messages["logs"]))
    print(f"gRPC: messages taken: {counts}, with {len(ids)} spans, none twice, and {records} log records")
    print(f"gRPC: UNAVAILABLE with a RetryInfo of {RETRY_SECONDS} s, it came back after {waited:.1f} s")
    print("1 passed, 0 failed")


if __name__ == "__main__":
    if pathlib.Path(sys.prefix) == TOOLS:
        main()
    elif env := tools():
        python = env / "bin" / "python"
        os.execv(python, [python, __file__])
