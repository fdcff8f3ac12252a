"""How large, how fast and how long: small by default, and as promised (--full)."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    full: bool
    backlog: int      # messages to each receiver that is away
    messages: int     # ... to each that misbehaves while connected
    body: int         # bytes
    rate: int         # messages/s to all of them together
    seconds: int      # of each measurement of the others' latency
    stored: int       # messages in the store that is backed up
    clients: int      # of the storm with tokens
    cold: int         # of the storm with passwords
    cold_seconds: int
    served_s: int     # within which all are served
    p50_ms: float     # below this the others' latency is as good as any: the least that is compared with
    p99_ms: float


SMALL = Scale(False, backlog=4000, messages=1500, body=700, rate=4000, seconds=3, stored=20000, clients=1000, cold=60, cold_seconds=8, served_s=30, p50_ms=10, p99_ms=250)
FULL = Scale(True, backlog=100000, messages=20000, body=100, rate=6000, seconds=20, stored=1000000, clients=10000, cold=10000, cold_seconds=60, served_s=15, p50_ms=1, p99_ms=10)
