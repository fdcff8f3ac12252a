"""im-api beside clients that are slow on purpose: all of its connections at once (reliability table 3.6, A4, slowloris)."""
import socket
import time

from instance import SANITIZED
from ports import free_ports
from raw_http import head, status

PORT, = free_ports(1)
OPTIONS = ["--no-bridges"]
CONF = (f"plugin_opt_im_http_listen 127.0.0.1:{PORT}",)
CONNECTIONS, EXCHANGE_S = 1024, 45  # services/api/server.h


def test_h7_all_connections_and_never_a_whole_request(im):
    """All connections that im-api has, each sending a byte of its head or body every three seconds.

    Each is ended when its time for one request is over, whatever it sends; then others are served. MQTT feels nothing."""
    began, body = time.monotonic(), head(im, b"Content-Length: 60000")
    held = [socket.create_connection(("127.0.0.1", PORT), 5) for _ in range(CONNECTIONS + 50)]
    open_at = {}
    for i, s in enumerate(held):
        try:
            s.sendall(body if i % 2 else body[:60])
        except OSError:
            pass  # one too many
        s.setblocking(False)
        open_at[s] = began
    while time.monotonic() < began + EXCHANGE_S - 3:
        for s in held:
            try:
                s.send(b"x")
                open_at[s] = time.monotonic()
            except OSError:
                pass
        time.sleep(3)
    stayed = [s for s in held if open_at[s] > began + EXCHANGE_S - 10]
    assert len(stayed) > CONNECTIONS / 2, "they were ended sooner: nothing was tried"
    deadline = began + EXCHANGE_S + (30 if SANITIZED else 10)
    while True:
        try:
            if status(im, PORT) == 200:
                break
        except (OSError, IndexError):
            pass
        assert time.monotonic() < deadline, "the slow ones are still there"
        time.sleep(0.2)
    for s in held:
        s.close()
