"""Asks a live bridge, with code that grpcio's own generator made of the same .proto files.

Arguments: the directory of the generated code, the unix socket, the uid of a workload, how many sessions all have.
"""

import gzip
import json
import sys

generated, socket, workload, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
sys.path.insert(0, generated)

import common_pb2  # noqa: E402
import enforcer_pb2 as pb  # noqa: E402
import enforcer_pb2_grpc as services  # noqa: E402
import grpc  # noqa: E402

channel = grpc.insecure_channel(
    f"unix:{socket}",
    # By itself it gives the socket's path as the authority, which is none: the server's HTTP/2 refuses it.
    options=[("grpc.max_receive_message_length", 32 << 20), ("grpc.default_authority", "localhost")],
    compression=grpc.Compression.Gzip,
)
void = common_pb2.RPCVoid()
enforcer = services.EnforcerServiceStub(channel)
assert services.EnforcerCapServiceStub(channel).IsGRPCCompressed(void, timeout=20).Value


def sessions(**narrowed):
    stream = enforcer.GetSessionList(pb.CLUSFilter(**narrowed), timeout=60)
    return [(s.Workload, s.ID) for message in stream for s in message.Sessions]


whole = sessions()
assert len(whole) == count == len(set(whole)), len(whole)
size = count // 4 + 1
paged = [s for start in range(0, count, size) for s in sessions(Start=start, Limit=size)]
assert paged == whole
assert sessions(Workload=workload, ID=7) == [(workload, 7)]

first = next(iter(enforcer.GetSessionList(pb.CLUSFilter(Limit=1), timeout=20))).Sessions[0]
assert (len(first.ClientIP), first.ServerPort, first.Ingress) == (4, 6379, True), first
assert enforcer.GetSessionCounter(void, timeout=20).CurTCPSessions == 8
assert enforcer.GetDatapathCounter(void, timeout=20).RXPackets == 22
stats = enforcer.GetStats(pb.CLUSFilter(Workload=workload), timeout=20)
assert (stats.Interval, stats.Total.ByteIn, stats.Span1.SessionIn) == (5, 5_000_000_000, 3), stats
group = enforcer.GetGroupStats(pb.CLUSWlIDArray(WlID=[workload]), timeout=20)
assert group.Total.SessionIn == 3, group
meters = [m for message in enforcer.GetMeterList(pb.CLUSFilter(), timeout=20) for m in message.Meters]
assert [(m.Count, m.Span) for m in meters] == [(9, 5), (9, 5)], meters
rules = enforcer.GetDerivedPolicyRules(pb.CLUSFilter(), timeout=20).RuleByte
assert workload in json.loads(gzip.decompress(rules))
assert enforcer.GetContainerIntercept(pb.CLUSFilter(Workload=workload), timeout=20).ID == workload
assert not enforcer.GetDerivedDlpRules(pb.CLUSFilter(), timeout=20).DlpRuleMap
enforcer.ClearSession(pb.CLUSFilter(Workload=workload, ID=7), timeout=20)


def refused(call, request):
    try:
        call(request, timeout=20)
    except grpc.RpcError as error:
        return error.code()
    return None


assert refused(enforcer.GetProcess, pb.CLUSFilter()) == grpc.StatusCode.UNIMPLEMENTED
assert refused(enforcer.GetStats, pb.CLUSFilter(Workload="ghost")) == grpc.StatusCode.NOT_FOUND
print("asked", len(whole))
