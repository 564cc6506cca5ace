"""Captures a live pod's packets by the sniffer calls, with code that grpcio's own generator made.

Arguments: the directory of the generated code, the unix socket, the uid of a workload, the file to write.
"""

import sys
import time

generated, socket, workload, path = sys.argv[1:]
sys.path.insert(0, generated)

import common_pb2  # noqa: E402,F401
import enforcer_pb2 as pb  # noqa: E402
import enforcer_pb2_grpc as services  # noqa: E402
import grpc  # noqa: E402

channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])
enforcer = services.EnforcerServiceStub(channel)


def command(cmd, **rest):
    return enforcer.SnifferCmd(pb.CLUSSnifferRequest(Cmd=cmd, **rest), timeout=30).ID


def sniffers(**narrowed):
    return list(enforcer.GetSniffers(pb.CLUSSnifferFilter(**narrowed), timeout=30).sniffers)


def refused(call, request):
    try:
        list(call(request, timeout=30)) if call is enforcer.GetSnifferPcap else call(request, timeout=30)
    except grpc.RpcError as error:
        return error.code()
    return None


def until(what, probe):
    end = time.monotonic() + 30
    while not probe():
        assert time.monotonic() < end, what
        time.sleep(0.1)


assert sniffers() == []
name = command(pb.StartSniffer, WorkloadID=workload, Filter="tcp port 80", FileNumber=5, FileSizeInMB=2)
[one] = sniffers()
assert (one.ID, one.WorkloadID, one.Status, one.Args) == (name, workload, pb.Running, "tcp port 80"), one
assert one.StartTime > 0 and one.StopTime == 0
until("bytes come", lambda: sniffers(ID=name)[0].Size > 20_000)
assert [one.ID for one in sniffers(Workload=workload)] == [name] and sniffers(ID="0" * 16) == []
part = b"".join(m.Pcap for m in enforcer.GetSnifferPcap(pb.CLUSSnifferDownload(ID=name), timeout=30))
assert len(part) > 20_000

command(pb.StopSniffer, ID=name)
until("it stops", lambda: sniffers(ID=name)[0].Status == pb.Stopped)
[one] = sniffers(ID=name)
assert one.StopTime >= one.StartTime
whole = b"".join(m.Pcap for m in enforcer.GetSnifferPcap(pb.CLUSSnifferDownload(ID=name), timeout=30))
assert len(whole) == one.Size and whole.startswith(part)
with open(path, "wb") as file:
    file.write(whole)

command(pb.RemoveSniffer, ID=name)
assert sniffers() == []
assert refused(enforcer.GetSnifferPcap, pb.CLUSSnifferDownload(ID=name)) == grpc.StatusCode.NOT_FOUND
start = dict(Cmd=pb.StartSniffer)
for rest, code in [
    (dict(WorkloadID="ghost"), grpc.StatusCode.NOT_FOUND),
    (dict(WorkloadID=workload, Filter="port http"), grpc.StatusCode.INVALID_ARGUMENT),
    (dict(WorkloadID="uid-cache"), grpc.StatusCode.FAILED_PRECONDITION),
    (dict(), grpc.StatusCode.INVALID_ARGUMENT),
]:
    request = pb.CLUSSnifferRequest(**start, **rest)
    assert refused(enforcer.SnifferCmd, request) == code, (rest, code)

short = command(pb.StartSniffer, WorkloadID=workload, DurationInSecond=1)
until("it ends by itself", lambda: sniffers(ID=short)[0].Status == pb.Stopped)
command(pb.StartSniffer, WorkloadID=workload)
command(pb.StartSniffer, WorkloadID=workload)
third = pb.CLUSSnifferRequest(**start, WorkloadID=workload)
assert refused(enforcer.SnifferCmd, third) == grpc.StatusCode.RESOURCE_EXHAUSTED
for one in sniffers():
    command(pb.RemoveSniffer, ID=one.ID)
assert sniffers() == []
