"""A controller that takes reports and remembers them, with code that grpcio's own generator made of the .proto files.

Arguments: the directory of the generated code, a directory, a port (0: any). The directory holds `tls.crt`, `tls.key`,
`ca.crt`, and `manner`, which is read for each call. What is told is written to `told`, a JSON object a line.
"""

import hashlib
import json
import sys
import time
from concurrent import futures
from pathlib import Path

generated, directory, port = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
sys.path.insert(0, generated)

import common_pb2  # noqa: E402
import controller_pb2 as pb  # noqa: E402
import controller_pb2_grpc as services  # noqa: E402
import grpc  # noqa: E402
from google.protobuf.json_format import MessageToDict  # noqa: E402

told = (directory / "told").open("a")


def note(call, context, message):
    shown = context.auth_context()["x509_pem_cert"][0]
    told.write(json.dumps({
        "call": call,
        "shown": hashlib.sha256(shown).hexdigest(),
        "gzip": any(key == "grpc-encoding" and value == "gzip" for key, value in context.invocation_metadata()),
        "message": MessageToDict(message, preserving_proto_field_name=True),
    }) + "\n")
    told.flush()


def manner():
    return (directory / "manner").read_text()


def hang(context):
    while context.is_active():
        time.sleep(0.02)


class Controller(services.ControllerAgentServiceServicer):
    def RequestAdmission(self, request, context):
        note("admission", context, request)
        if manner() == "refuse":
            return pb.CLUSAdmissionResponse(Allowed=False, Reason="no licence for\x1b[2J it")
        if manner() == "hang":
            hang(context)
        return pb.CLUSAdmissionResponse(Allowed=True)

    def ReportConnections(self, request, context):
        answer = pb.CLUSReportResponse(ReportInterval=1)
        match manner():
            case "resend":
                answer.Action = pb.Resend
                note("resend", context, request)
                return answer
            case "follower":
                note("follower", context, request)
                return pb.CLUSReportResponse(Action=pb.Resend)
            case "no":
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not now")
            case "hang":
                hang(context)
                return answer
            case "swallow":
                note("report", context, request)
                hang(context)
        note("report", context, request)
        return answer


class Capabilities(services.ControllerCapServiceServicer):
    def IsGRPCCompressed(self, request, context):
        return common_pb2.CLUSBoolean(Value=True)


def read(name):
    return (directory / name).read_bytes()


server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
services.add_ControllerAgentServiceServicer_to_server(Controller(), server)
services.add_ControllerCapServiceServicer_to_server(Capabilities(), server)
credentials = grpc.ssl_server_credentials(
    [(read("tls.key"), read("tls.crt"))], root_certificates=read("ca.crt"), require_client_auth=True
)
print(server.add_secure_port(f"127.0.0.1:{port}", credentials), flush=True)
server.start()
server.wait_for_termination()
