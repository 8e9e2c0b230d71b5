"""Receives spans and metrics by OTLP, as a collector does: GRPC_ADDRESS HTTP_ADDRESS SPANS METRICS. Each span and each data
point becomes a line of JSON in its file."""
import json
import sys
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_rpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

GRPC, HTTP, SPANS, METRICS = sys.argv[1:5]
OUT = open(SPANS, "ab", buffering=0)
POINTS = open(METRICS, "ab", buffering=0)


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(items):
    return {item.key: value(item.value) for item in items}


def write(to, lines):
    """All of a request at once: who reads meanwhile sees either all of it or nothing."""
    to.write("".join(json.dumps(line) + "\n" for line in lines).encode())


def receive(request, over, key):
    lines = []
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                lines.append({
                    "over": over,
                    "key": key,
                    "resource": attributes(resource.resource.attributes),
                    "scope": scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": trace.Span.SpanKind.Name(span.kind),
                    "begun": span.start_time_unix_nano,
                    "took": span.end_time_unix_nano - span.start_time_unix_nano,
                    "attributes": attributes(span.attributes),
                    "status": trace.Status.StatusCode.Name(span.status.code),
                })
    write(OUT, lines)
    return service.ExportTraceServiceResponse()


def measure(request, over, key):
    lines = []
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                for point in data.data_points:
                    line = {
                        "over": over,
                        "key": key,
                        "resource": attributes(resource.resource.attributes),
                        "scope": scope.scope.name,
                        "name": metric.name,
                        "unit": metric.unit,
                        "described": bool(metric.description),
                        "kind": kind,
                        "attributes": attributes(point.attributes),
                        "at": point.time_unix_nano,
                        "since": point.start_time_unix_nano,
                    }
                    if kind != "gauge":
                        line["temporality"] = metrics.AggregationTemporality.Name(data.aggregation_temporality)
                    if kind == "sum":
                        line["monotonic"] = data.is_monotonic
                    if kind == "histogram":
                        line["count"], line["sum"] = point.count, point.sum
                        line["counts"], line["bounds"] = list(point.bucket_counts), list(point.explicit_bounds)
                        line["exemplars"] = [exemplar.trace_id.hex() for exemplar in point.exemplars]
                    else:
                        line["value"] = point.as_double
                    lines.append(line)
    write(POINTS, lines)
    return metrics_service.ExportMetricsServiceResponse()


class GrpcMetrics(metrics_rpc.MetricsServiceServicer):
    def Export(self, request, context):
        return measure(request, "grpc", dict(context.invocation_metadata()).get("x-api-key"))


class Grpc(rpc.TraceServiceServicer):
    def Export(self, request, context):
        return receive(request, "grpc", dict(context.invocation_metadata()).get("x-api-key"))


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["Content-Type"] == "application/x-protobuf"
        answer = b""
        if known and self.path == "/v1/traces":
            request = service.ExportTraceServiceRequest.FromString(body)
            answer = receive(request, "http", self.headers.get("x-api-key")).SerializeToString()
        elif known and self.path == "/v1/metrics":
            request = metrics_service.ExportMetricsServiceRequest.FromString(body)
            answer = measure(request, "http", self.headers.get("x-api-key")).SerializeToString()
        else:
            known = False
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
rpc.add_TraceServiceServicer_to_server(Grpc(), server)
metrics_rpc.add_MetricsServiceServicer_to_server(GrpcMetrics(), server)
assert server.add_insecure_port(GRPC), "the port is taken"
server.start()
address, port = HTTP.rsplit(":", 1)
http = ThreadingHTTPServer((address, int(port)), Http)
print("ready", flush=True)
http.serve_forever()
