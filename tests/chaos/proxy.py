"""A TCP proxy that is as bad as networks are: it delays, stalls one way, trickles, cuts after n bytes, resets, and loses: nothing
goes down any more, though the server's machine is told that it arrived, and in the end the connections are gone with all that.

A thread of its own. `mode` is what happens to all connections at the moment, new and old; heal() ends it at once.
"""
import contextlib
import random
import select
import socket
import struct
import threading
import time

MODES = ("delay", "stall-up", "stall-down", "trickle", "cut", "reset", "lose")
PIECE = 1 << 16
HELD = 1 << 20  # bytes kept of one direction before nothing more is read of it: a full pipe, as in real networks


class Pipe:
    """One direction of a connection: what was read and when, until it may go on."""

    def __init__(self, source, target, up):
        self.source, self.target, self.up = source, target, up
        self.held, self.size = [], 0

    def may_go(self, proxy, now):
        """Bytes that leave now."""
        if not self.held:
            return 0
        mode = proxy.mode
        if mode == "stall-up" and self.up or mode in ("stall-down", "lose") and not self.up or proxy.losing:
            return 0
        if mode == "delay" and now - self.held[0][0] < proxy.delay_s:
            return 0
        return 1 if mode == "trickle" else len(self.held[0][1])


class Proxy(threading.Thread):
    def __init__(self, port, seed):
        super().__init__(daemon=True)
        self.target, self.rng = port, random.Random(seed)
        self.mode, self.delay_s, self.after = None, 0.0, 0
        self.pipes, self.stopping, self.losing = [], False, False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.listener.setblocking(False)

    def set(self, mode, delay_s=0.2, after=0):
        self.delay_s, self.after, self.mode = delay_s, after, mode

    def heal(self):
        self.losing = self.mode == "lose"
        self.mode = None

    def stop(self):
        self.stopping = True
        self.join(5)

    # ---- the loop

    def run(self):
        while not self.stopping:
            reading = {p.source: p for p in self.pipes if p.size < HELD}
            ready, _, _ = select.select([self.listener, *reading], [], [], 0.002 if any(p.held for p in self.pipes) else 0.02)
            now = time.monotonic()
            if self.losing:
                self._lose()
                continue
            for s in ready:
                if s is self.listener:
                    self._accept()
                elif s.fileno() >= 0:
                    self._read(reading[s], now)
            for p in list(self.pipes):
                if p.source.fileno() >= 0:
                    self._write(p, now)
        for p in self.pipes:
            p.source.close()
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=0.2)
            except OSError:
                client.close()
                return
            for s in (client, server):
                s.setblocking(False)
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.pipes += [Pipe(client, server, True), Pipe(server, client, False)]

    def _read(self, p, now):
        try:
            piece = p.source.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._end(p)
            return
        p.held.append((now, piece))
        p.size += len(piece)
        if self.mode in ("cut", "reset"):
            self.after -= len(piece)
            if self.after <= 0:
                self._end(p, hard=self.mode == "reset", part=self.rng.randrange(len(piece)) if self.mode == "cut" else 0)
                self.after = self.rng.randrange(1, 4000)

    def _write(self, p, now):
        while n := p.may_go(self, now):
            at, piece = p.held.pop(0)
            try:
                sent = p.target.send(piece[:n])
            except BlockingIOError:
                sent = 0
            except OSError:
                self._end(p)
                return
            p.size -= sent
            if sent < len(piece):
                p.held.insert(0, (at, piece[sent:]))
                return

    def _lose(self):
        while self.pipes:
            self._end(self.pipes[0], hard=True)
        self.losing = False

    def _end(self, p, hard=False, part=0):
        """Closes both ends; of the last piece `part` bytes still arrive, so that a packet is cut in the middle."""
        if part:
            with contextlib.suppress(OSError):
                p.target.send(p.held[-1][1][:part])
        for s in (p.source, p.target):
            if hard:
                with contextlib.suppress(OSError):
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.pipes = [q for q in self.pipes if q.source not in (p.source, p.target)]
        p.source.close()
        p.target.close()
