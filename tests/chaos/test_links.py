"""What the history says of repeats is what goes over the wire, also where a library does something of its own."""
import pathlib
import select
import socket
import sys
import threading
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / "support"), str(pathlib.Path(__file__).resolve().parent)]
from links import PahoLink  # noqa: E402
from raw import CONNECT, PUBCOMP, PUBLISH, PUBREC, PUBREL  # noqa: E402

REFUSED = 0x87


class Broker(threading.Thread):
    """Refuses the first QoS 2 message and goes; the next connection ends at once; the third one takes everything."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener, self.seen = socket.create_server(("127.0.0.1", 0)), []  # (connection, kind, flags, packet id)
        self.port = self.listener.getsockname()[1]

    def run(self):
        for connection in range(3):
            c, _ = self.listener.accept()
            with c, c.makefile("rb") as f:
                while connection != 1 and self.packet(c, f, connection):
                    pass

    def packet(self, c, f, connection):
        """False: the connection ends."""
        head = f.read(2)
        if len(head) < 2:
            return False
        kind, flags, body = head[0] >> 4, head[0] & 15, f.read(head[1])
        size = int.from_bytes(body[:2], "big")
        mid = body[:2] if kind == PUBREL else body[2 + size:4 + size]
        self.seen.append((connection, kind, flags, mid))
        if kind == CONNECT:
            c.sendall(bytes([0x20, 3, int(connection > 0), 0, 0]))
        elif kind == PUBLISH:
            c.sendall(bytes([PUBREC << 4, 3]) + mid + bytes([0 if connection else REFUSED]))
        elif kind == PUBREL and connection:
            c.sendall(bytes([PUBCOMP << 4, 2]) + mid)
        return kind != PUBREL or connection > 0


class Handler:
    def __init__(self):
        self.told, self.ups = [], 0

    def up(self):
        self.ups += 1

    def down(self):
        pass

    def repeated(self, token):
        self.told.append(("repeated", token))

    def acked(self, token, rc):
        self.told.append(("acked", token, rc))


def test_a_refused_message_that_paho_sends_again_is_a_new_try():
    broker, handler = Broker(), Handler()
    broker.start()
    link = PahoLink({"v5": True, "clean": False, "client": "c", "user": "u", "token": "t", "port": broker.port}, handler)
    sent, until = False, time.monotonic() + 20
    while time.monotonic() < until and ("acked", "m", 0) not in handler.told:
        link.tick(time.monotonic())
        if link.connected and not sent:
            sent = True
            link.publish("a", b"x", 2, "m")
        if link.sock is None:
            time.sleep(0.01)
            continue
        ready, writable, _ = select.select([link], [link] if link.wants_write() else [], [], 0.01)
        if writable:
            link.writable()
        if ready and link.sock is not None:
            link.readable()
    assert [s[1:] for s in broker.seen if s[:2] == (2, PUBLISH)] == [(PUBLISH, 4, b"\0\1")], "Paho does it no more: PahoLink may forget it"
    assert handler.told == [("acked", "m", REFUSED), ("repeated", "m"), ("acked", "m", 0)]
