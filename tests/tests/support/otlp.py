"""Receives spans by OTLP, as a collector does: GRPC_ADDRESS HTTP_ADDRESS FILE. Each span becomes a line of JSON in FILE."""
import json
import sys
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

GRPC, HTTP, FILE = sys.argv[1:4]
OUT = open(FILE, "a", buffering=1)


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(items):
    return {item.key: value(item.value) for item in items}


def receive(request, over, key):
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                OUT.write(json.dumps({
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
                }) + "\n")
    return service.ExportTraceServiceResponse()


class Grpc(rpc.TraceServiceServicer):
    def Export(self, request, context):
        return receive(request, "grpc", dict(context.invocation_metadata()).get("x-api-key"))


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
        answer = b""
        if known:
            request = service.ExportTraceServiceRequest.FromString(body)
            answer = receive(request, "http", self.headers.get("x-api-key")).SerializeToString()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
rpc.add_TraceServiceServicer_to_server(Grpc(), server)
assert server.add_insecure_port(GRPC), "the port is taken"
server.start()
address, port = HTTP.rsplit(":", 1)
http = ThreadingHTTPServer((address, int(port)), Http)
print("ready", flush=True)
http.serve_forever()
