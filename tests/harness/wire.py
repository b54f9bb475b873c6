"""One end of a connection, whoever holds it."""

import errno
import os
import socket
import struct
import time
from fcntl import ioctl

from . import settings

SIOCOUTQ = 0x5411
TCP_CLOSE = 7


class Truncated(Exception):
    """The peer closed in the middle of what was being read."""


class Wire:
    """A connected socket: buffered reads, everything noted in the exchange.

    Reads wait for `patience` seconds at most; None waits for ever.
    """

    def __init__(self, sock, who, exchange, patience=settings.PATIENCE):
        self.sock = sock
        self.who = who
        self.exchange = exchange
        self.patience = patience
        self.received = bytearray()
        self.sent = bytearray()
        self.closed = False
        self._unread = bytearray()
        self._at_end = False

    # sending

    def send(self, *parts):
        data = b"".join(parts)
        self.exchange.note(self.who, f"sends {len(data)} bytes", data)
        self.sock.settimeout(self.patience)
        self.sock.sendall(data)
        self.sent += data

    def wait_until_delivered(self):
        """Wait until the peer's system has all that was sent, the end too.

        To have sent is not enough: with the machine busy, what goes over
        loopback arrives some time later.  With a unix socket, wait until
        the peer has read it.  A connection that is gone delivers nothing.
        """
        deadline = time.monotonic() + settings.PATIENCE
        while struct.unpack("i", ioctl(self.sock, SIOCOUTQ, bytes(4)))[0]:
            if self._is_gone():
                return
            assert time.monotonic() < deadline, \
                f"{self.who}: what was sent does not arrive"
            os.sched_yield()

    def _is_gone(self):
        return self.sock.family != socket.AF_UNIX and self.sock.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE

    def half_close(self):
        """End our direction; the peer's may go on."""
        self.exchange.note(self.who, "half-closes")
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            # the other side has reset it meanwhile
            if error.errno != errno.ENOTCONN:
                raise

    def close(self):
        self._end("closes")

    def reset(self):
        """Abort with RST instead of FIN."""
        if not self.closed:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 struct.pack("ii", 1, 0))
        self._end("resets")

    def _end(self, how):
        """Noted before whatever follows from it, told when it is done: what
        is sent to a socket that is still open is answered with a reset."""
        if not self.closed:
            self.exchange.note(self.who, how)
            self.sock.close()
            self.closed = True
            self.exchange.wake()

    # receiving

    def recv(self):
        """Some bytes, as soon as there are any; b"" at the end."""
        if self._unread:
            data = bytes(self._unread)
            self._unread.clear()
            return data
        self._fill()
        data = bytes(self._unread)
        self._unread.clear()
        return data

    def read(self, size):
        """Exactly so many bytes."""
        while len(self._unread) < size:
            if not self._fill():
                raise Truncated(f"{self.who}: {size} bytes expected, the "
                                f"end after {bytes(self._unread)!r}")
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    def read_line(self):
        """A line without its CRLF; a bare LF is an error."""
        return self.read_until(b"\r\n")[:-2]

    def read_until(self, mark):
        """All up to the mark, and the mark."""
        start = 0
        while True:
            found = self._unread.find(mark, start)
            if found >= 0:
                return self.read(found + len(mark))
            start = max(0, len(self._unread) - len(mark) + 1)
            if not self._fill():
                raise Truncated(f"{self.who}: the end after "
                                f"{bytes(self._unread)!r}")

    def read_until_close(self):
        """All up to the peer's end of stream."""
        while self._fill():
            pass
        data = bytes(self._unread)
        self._unread.clear()
        return data

    def wait_for_close(self):
        """As read_until_close, but content with a reset as well."""
        try:
            return self.read_until_close()
        except ConnectionError:
            data = bytes(self._unread)
            self._unread.clear()
            return data

    def more(self):
        """Is there anything left to read?  Waits for a byte or the end."""
        return bool(self._unread) or self._fill()

    @property
    def unread(self):
        """What has been received and not been read."""
        return bytes(self._unread)

    def _fill(self):
        if self._at_end:
            return False
        self.sock.settimeout(self.patience)
        started = time.monotonic()
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            waited = time.monotonic() - started
            raise AssertionError(f"{self.who}: nothing came within "
                                 f"{waited:.1f} s") from None
        except OSError as error:
            self._at_end = True
            self.exchange.note(self.who, f"sees {error}")
            raise
        if not data:
            self._at_end = True
            self.exchange.note(self.who, "sees the end")
            return False
        self.received += data
        self._unread += data
        self.exchange.note(self.who, f"receives {len(data)} bytes", data)
        return True
