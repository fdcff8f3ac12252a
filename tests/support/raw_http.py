"""HTTP/1.1 by hand, for what no library sends: requests that can be read in two ways, half ones, and what comes back."""
import base64
import re
import socket


class Answer:
    """What came back on one connection. closed: by the server, in time."""

    def __init__(self, data, closed):
        self.data, self.closed = data, closed
        self.heads = [h.decode("latin-1") for h in re.findall(rb"HTTP/1\.1 \d{3} .*?\r\n\r\n", data, re.S)]
        self.statuses = [int(h[9:12]) for h in self.heads]
        self.users = re.findall(rb'"user":"(\w+)"', data)


def said(port, data, seconds=10.0, until_closed=True):
    """seconds: of silence after which nothing more is expected."""
    out, closed = b"", False
    with socket.create_connection(("127.0.0.1", port), 20) as s:
        try:
            s.sendall(data)
            s.settimeout(seconds)
            while not closed and (until_closed or not out):
                chunk = s.recv(65536)
                out, closed = out + chunk, not chunk
        except TimeoutError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            closed = True
    return Answer(out, closed)


def head(im, *lines, user="alice", secret=None, first=b"POST /v1/req/me HTTP/1.1", host=b"Host: x", close=False):
    """close: nothing comes after this request, so that its answer can be read to the end."""
    login = base64.b64encode(f"{user}:{secret or im.users[user]}".encode())
    mine = (host, b"Authorization: Basic " + login, f"Im-Client-Id: {user}:phone".encode(), b"Connection: close" if close else b"")
    return b"\r\n".join((first, *(x for x in mine if x), *lines, b"", b""))


def status(im, port, **who):
    """Of an ordinary request on a connection of its own."""
    return said(port, head(im, b"Content-Length: 2", close=True, **who) + b"{}", 20).statuses[0]
