"""A tiny name server for nginx's resolver."""

import ipaddress
import socket
import struct
import threading

A, AAAA = 1, 28
NXDOMAIN = 3


class NameServer:
    """Answers A and AAAA questions from `records`: name -> addresses.

    A name that is not there does not exist.  `questions` are those asked.
    After hold() it is silent until release().
    """

    def __init__(self, exchange, records, ttl=1):
        self.exchange = exchange
        self.records = dict(records)
        self.ttl = ttl
        self.questions = []
        self._held = None
        self._lock = threading.Lock()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.port = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __str__(self):
        return f"127.0.0.1:{self.port}"

    def hold(self):
        with self._lock:
            self._held = []

    def release(self):
        with self._lock:
            held, self._held = self._held, None
            for query, peer in held:
                self._sock.sendto(self._answer(query), peer)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self._sock.getsockname())
        self._thread.join()
        self._sock.close()

    def _serve(self):
        while True:
            query, peer = self._sock.recvfrom(4096)
            if not query:
                return
            with self._lock:
                self.questions.append(read_name(query, 12)[0])
                if self._held is None:
                    self._sock.sendto(self._answer(query), peer)
                else:
                    self._held.append((query, peer))

    def _answer(self, query):
        name, end = read_name(query, 12)
        kind, _ = struct.unpack_from("!HH", query, end)
        question = query[12:end + 4]
        known = self.records.get(name)
        found = [ipaddress.ip_address(text) for text in known or ()]
        found = [address.packed for address in found
                 if address.version == (6 if kind == AAAA else 4)]
        self.exchange.note("dns", f"{name} type {kind}: "
                           f"{len(found)} addresses")
        flags = 0x8180 | (NXDOMAIN if known is None else 0)
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        records = b"".join(
            struct.pack("!HHHIH", 0xc00c, kind, 1, self.ttl, len(packed))
            + packed for packed in found)
        return head + question + records


def read_name(packet, at):
    labels = []
    while packet[at]:
        size = packet[at]
        labels.append(packet[at + 1:at + 1 + size].decode())
        at += 1 + size
    return ".".join(labels), at + 1
