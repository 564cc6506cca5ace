"""The cluster's DNS: A records of Services, of the pods behind those without an address, and nothing else.

usage: dns.py ADDRESS KUBECONFIG   (of the form that identity.sh writes)
"""

import base64
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.request

ZONE = ".svc.cluster.local"
TYPE_A = 1
NAME_ERROR = 3
SECONDS_VALID = 2


class Cluster:
    """What the API server says, asked again every second."""

    def __init__(self, kubeconfig):
        with open(kubeconfig, encoding="utf-8") as file:
            text = file.read()
        self.server = re.search(r"server: (\S+)", text)[1]
        self.token = re.search(r"token: (\w+)", text)[1]
        authority = base64.b64decode(re.search(r"certificate-authority-data: (\S+)", text)[1])
        self.tls = ssl.create_default_context(cadata=authority.decode())
        self.names = {}

    def get(self, path):
        request = urllib.request.Request(self.server + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, context=self.tls, timeout=5) as answer:
            return json.load(answer)["items"]

    def look(self):
        pods = {}
        for endpoints in self.get("/api/v1/endpoints"):
            addresses = [one["ip"] for part in endpoints.get("subsets") or [] for one in part.get("addresses") or []]
            pods[endpoints["metadata"]["name"], endpoints["metadata"]["namespace"]] = addresses
        names = {}
        for service in self.get("/api/v1/services"):
            key = service["metadata"]["name"], service["metadata"]["namespace"]
            address = service["spec"].get("clusterIP")
            names[".".join(key) + ZONE] = pods.get(key, []) if address in (None, "", "None") else [address]
        self.names = names

    def follow(self):
        while True:
            try:
                self.look()
            except (OSError, KeyError, ValueError) as error:
                print(error, flush=True)
            time.sleep(1)


def answer(question, names):
    """The answer to one datagram."""
    at, labels = 12, []
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode().lower())
        at += 1 + question[at]
    (kind,) = struct.unpack(">H", question[at + 1 : at + 3])
    name = ".".join(labels)
    addresses = names.get(name, []) if kind == TYPE_A else []
    code = 0 if name in names or name.endswith(ZONE[1:]) and name.count(".") < 4 else NAME_ERROR
    head = question[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(addresses), 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", TYPE_A, 1, SECONDS_VALID, 4)
    return head + question[12 : at + 5] + b"".join(record + socket.inet_aton(one) for one in addresses)


def main(address, kubeconfig):
    cluster = Cluster(kubeconfig)
    threading.Thread(target=cluster.follow, daemon=True).start()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        question, client = server.recvfrom(1500)
        try:
            server.sendto(answer(question, cluster.names), client)
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            print(f"{client}: {error}", flush=True)


main(*sys.argv[1:])
