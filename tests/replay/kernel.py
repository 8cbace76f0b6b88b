"""Captures of the kernel's own tunnel devices: a connection through each, captured below it. Linux, root."""
import ctypes
import os
import socket
import struct
import subprocess
import threading
import time

FRONT, BACK = "ft-front", "ft-back"
OUT = ("192.0.2.1", "192.0.2.2")
IN = ("10.77.0.1", "10.77.0.2")
# Name, arguments of `ip link add tun0` with the two ends' addresses, whether the device has Ethernet, and the tunnel's name.
DEVICES = [
    ("vlan", "link under type vlan id 5", None),
    ("qinq", "link under type vlan proto 802.1ad id 5", None),
    ("vxlan", "type vxlan id 7 local {own} remote {peer} dstport 4789 dev under", "vxlan"),
    ("geneve", "type geneve id 7 remote {peer}", "geneve"),
    ("gre", "type gre local {own} remote {peer} key 7 seq csum", "gre"),
    ("gretap", "type gretap local {own} remote {peer}", "gre"),
    ("erspan", "type erspan local {own} remote {peer} seq key 1 erspan_ver 1 erspan 1", "erspan"),
    ("ipip", "type ipip local {own} remote {peer}", "ipip"),
    ("sit", "type sit local {own} remote {peer} mode ip4ip4", "ipip"),
]


def ip(namespace, words):
    return subprocess.run(["ip", "-n", namespace, *words.split()], capture_output=True, text=True)


def inside(namespace, do):
    """Runs `do` in a thread that is in the namespace, and gives back what it gives."""
    result = []

    def run():
        with open(f"/var/run/netns/{namespace}") as file:
            setns(file.fileno())
        result.append(do())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result[0] if result else None


def setns(descriptor):
    """os.setns has Python from 3.12 on."""
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def remove():
    for name in (FRONT, BACK):
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def cases():
    """Name, bytes of a capture, the tunnel's name; or name, None, why not."""
    if os.geteuid() != 0:
        yield "kernel", None, "root is needed for tunnel devices"
        return
    for name, words, tunnel in DEVICES:
        remove()
        try:
            yield f"kernel-{name}", *capture(words), tunnel
        except OSError as error:
            yield f"kernel-{name}", None, str(error)
        finally:
            remove()


def capture(words):
    for name in (FRONT, BACK):
        subprocess.run(["ip", "netns", "add", name], check=True)
    ip(FRONT, f"link add under type veth peer name under netns {BACK}")
    for name, (own, peer), address in ((FRONT, OUT, IN[0]), (BACK, OUT[::-1], IN[1])):
        for command in (f"addr add {own}/24 dev under", "link set lo up", "link set under up"):
            ip(name, command)
        made = ip(name, "link add name tun0 " + words.format(own=own, peer=peer))
        if made.returncode != 0:
            raise OSError(f"this kernel makes no such device: {made.stderr.strip()}")
        ip(name, f"addr add {address}/24 dev tun0")
        ip(name, "link set tun0 up")
    sniffer = inside(FRONT, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
    sniffer.settimeout(0.5)
    server = inside(BACK, lambda: socket.create_server((IN[1], 8080)))
    client = inside(FRONT, dial)
    taken, _ = server.accept()
    client.sendall(b"a question")
    taken.recv(100)
    taken.sendall(b"an answer, which is longer")
    client.recv(100)
    client.close()
    taken.recv(100)
    taken.close()
    time.sleep(0.3)
    frames = []
    try:
        while True:
            frame, (device, *_) = sniffer.recvfrom(65536)
            if device == "under":
                frames.append(frame)
    except TimeoutError:
        pass
    head = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    packets = (struct.pack("<IIII", 1_700_000_000, i, len(f), len(f)) + f for i, f in enumerate(frames))
    return (head + b"".join(packets),)


def dial():
    # Neighbours and devices take a moment.
    for _ in range(20):
        try:
            return socket.create_connection((IN[1], 8080), timeout=2)
        except OSError:
            time.sleep(0.1)
    raise OSError("no connection through the device")
