"""Sends one frame by a packet socket of a user: frame.py UID DEVICE FRAME_HEX PROTOCOL MARK BYPASS"""
import ctypes
import socket
import sys

uid, device, frame, protocol, mark, bypass = sys.argv[1:]
ctypes.CDLL(None).setfsuid(int(uid))  # the owner that rules see; NET_RAW stays
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
if int(mark, 0):
    packets.setsockopt(socket.SOL_SOCKET, 36, int(mark, 0))  # SO_MARK
if bypass == "bypass":
    packets.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
try:
    packets.sendto(bytes.fromhex(frame), (device, int(protocol, 0)))
except OSError as error:  # a guard may say so, or not
    print(error)
