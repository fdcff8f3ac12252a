#!/usr/bin/python3
"""Senders and receivers under load while things go wrong; then everything is compared, and every rule of checker.py must hold.

    scripts/chaos [--minutes N] [--kills N] [--seed S] [--durability process|disk] [--faults kill,stop,net,...]
    scripts/chaos --check FOLDER      the verdict on the histories of an earlier run

Ends when the time is over and the kills are reached. A line every 10 s, a report in numbers at the end, exit status 0 only if all
rules hold. A run that fails keeps its histories and the data folder and says how to run the same schedule again.
"""
import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
import checker  # noqa: E402
import nemesis  # noqa: E402
import world as worlds  # noqa: E402
from client import Client  # noqa: E402
from history import History, Writer, canonical  # noqa: E402
from instance import SANITIZED  # noqa: E402

SHOWN = 20  # findings printed


class Admin(threading.Thread):
    """Lets users in and out of a group, and looks at cursors."""

    def __init__(self, world, rng):
        super().__init__(daemon=True)
        self.world, self.rng = world, rng
        self.log = Writer(world.histories, "admin")
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.wait(self.rng.uniform(0.3, 1.5)):
            if self.rng.random() < 0.5:
                self.move(self.rng.choice(self.world.movers), self.rng.choice(("add", "kick")))
            else:
                self.look(self.rng.choice(self.world.users))

    def move(self, user, verb):
        """Only what was answered with a sequence is a change."""
        kind = {"add": "join", "kick": "leave"}[verb]
        self.log.line("invoke", kind, conv="g/crowd", user=user)
        answer = self.ask("group", verb, "crowd", user)
        if answer and "seq" in answer[0]:
            self.log.line("ok", kind, conv="g/crowd", user=user, seq=answer[0]["seq"])

    def look(self, user, **more):
        for c in self.ask("conversations", user) or ():
            self.log.line("info", "cursor", user=user, conv=canonical(user, c["conv"]), delivered=c["delivered"], read=c["read"], **more)
        self.log.flush()

    def ask(self, *args):
        try:
            p = self.world.instance.imctl(*args, "--json", check=False, timeout=60)
        except subprocess.TimeoutExpired:
            return None
        return [json.loads(line) for line in p.stdout.splitlines()] if p.returncode == 0 else None

    def stop(self):
        self.stopping.set()
        self.join(90)


def progress(world, nem, began):
    kills = collections.Counter(world.killed.values())
    others = ", ".join(f"{n} {k}" for k, n in sorted(nem.done.items()) if k != "kill")
    print(f"{time.monotonic() - began:5.0f} s: {sum(kills.values())} kills{', ' if others else ''}{others}; {world.total('attempted')} sent, "
          f"{world.total('acked')} acknowledged, {world.total('answered')} answered, {world.total('received')} received, {world.total('open')} open", flush=True)


def hurt(world, nem, options):
    """The time with faults."""
    began = shown = time.monotonic()
    nem.start()
    while time.monotonic() - began < options.minutes * 60 or len(world.killed) < options.kills:
        time.sleep(0.2)
        if nem.error:
            raise nem.error
        if time.monotonic() - shown >= 10:
            shown = time.monotonic()
            progress(world, nem, began)
    nem.stop()
    if nem.error:
        raise nem.error
    progress(world, nem, began)
    return time.monotonic() - began


def wait(limit, condition, step=0.1):
    """Seconds until it holds; None: it did not."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit:
            return None
        time.sleep(step)
    return time.monotonic() - began


def probe(world):
    """A message goes all the way, between users of its own."""
    def once():
        try:
            with Client(world.instance, "probe1", "p") as c:
                c.subscribe("im/v1/in/ack")
                c.publish("im/v1/to/u/probe2", "there?", timeout=3)
                return bool(c.json("im/v1/in/ack", 3))
        except (AssertionError, OSError, ValueError, RuntimeError):
            return False
    told(world, "probe", wait(2 * checker.ROUND_TRIP_S, once))


def told(world, what, seconds):
    world.log.line("info" if seconds is None else "ok", what, s=10**6 if seconds is None else round(seconds, 3))


def heal(world):
    """Everything runs, nobody sends, the journal is empty."""
    probe(world)
    world.tell({"do": "hush"})

    def quiet():
        p = world.instance.imctl("status", "--json", check=False)
        return p.returncode == 0 and world.total("open") == 0 and json.loads(p.stdout)["plugin"]["journal"]["bytes"] == 0
    told(world, "drain", wait(2 * checker.RESOLVED_S, quiet, 0.3))
    time.sleep(1.0)  # refusals that are owed are told


def dump(world):
    """The store as the server shows it, and the same as the movers see it; {conv: [(seq, system message, bytes)]}."""
    log, places = Writer(world.histories, "store"), {}
    for conv in sorted(world.conversations):
        user, address = ("u0", conv) if conv.startswith("g/") else (conv[2:].split(":")[0], "u/" + conv.split(":")[1])
        rows = places.setdefault(conv, [])
        for m in history(world, user, address):
            system = m["body"] if m["type"] == "system" else None
            fields = worlds.message_fields(m, conv)
            log.line("ok", "row", prev=m.get("prev", 0), **{"from": m["from"]}, sys=system, **fields)
            rows.append((m["seq"], system, fields["len"]))
    log.close()
    for user in world.movers:
        log = Writer(world.histories, f"{user}:pull")
        log.line("info", "actor", kind="receiver", user=user, client=f"{user}:pull", only="g/crowd")
        for m in history(world, user, "g/crowd"):
            log.line("ok", "recv", via="sync", **worlds.message_fields(m, "g/crowd"))
        log.close()
    return places


def history(world, user, address):
    """One message after another: there may be a million."""
    command = [str(worlds.BUILD / "bin/imctl"), "--dir", str(world.instance.dir), "history", user, address, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        for line in p.stdout:
            yield json.loads(line)
        if p.wait() not in (0, 3):  # 3: nothing was ever said there
            raise RuntimeError(f"history {user} {address}: exit {p.returncode} {p.stderr.read().decode()}")


def complete(world, places):
    """Waits until every receiver has come to the last message of each conversation that it may see, or its time is over.

    A device that acks has RESOLVED_S. A silent one whose sessions all ended before they settled begins again at the first
    message, and is handed im_silent_bytes a settle period (docs/delivery.md, 10): it has one period more for each of those.
    Seconds of the last one that acks, and of the last silent one; None: it was not there in time."""
    h = History()
    for conv, rows in places.items():
        for seq, system, _ in rows:
            if system:
                h.add({"f": "row", "conv": conv, "seq": seq, "prev": 0, "msgid": "", "id": None, "from": None, "h": "", "len": 0, "sys": system})
    x = checker.Index(h)
    last, weight = {}, collections.Counter()
    for conv, rows in places.items():
        for user in world.users if conv.startswith("g/") else conv[2:].split(":"):
            seen = [(seq, size) for seq, _, size in rows if x.may_see(conv, user, seq)]
            last.setdefault(user, {})[conv] = seen[-1][0] if seen else 0
            weight[user] += sum(size + worlds.OVERHEAD for _, size in seen)

    def there(device):
        user = device.split(":")[0]
        have = {canonical(user, a): seq for c in world.crowds for a, seq in c.status.get("tops", {}).get(device, {}).items()}
        return all(have.get(conv, 0) >= seq for conv, seq in last.get(user, {}).items())

    def all_there(acks, limit):
        devices = [name for name, spec in world.receivers.items() if spec["acks"] is acks]
        return wait(limit, lambda: all(there(d) for d in devices))
    budgets = max((weight[s["user"]] // worlds.SILENT_BYTES for s in world.receivers.values() if not s["acks"]), default=0)
    return all_there(True, checker.RESOLVED_S), all_there(False, checker.RESOLVED_S + budgets * worlds.SETTLE_S)


def finish(world, admin):
    """From the last fault to complete histories."""
    heal(world)
    admin.stop()
    places = dump(world)
    caught_up = complete(world, places)
    for user in world.users:
        admin.look(user, final=1)
    world.stop()
    world.keeper.finish()
    if world.power_cuts:  # what was read of the journal may have been taken back: C12 has nothing to say
        (world.histories / "journal.jsonl").unlink()
    for part, pid, how in world.crashes():
        world.log.line("info", "crash", target=part, pid=pid, how=how)
    for log in (world.log, admin.log, world.keeper.log):
        log.close()
    return caught_up


def report(found, n):
    for verdict, sentence in found[:SHOWN]:
        print(f"{verdict}: {sentence}")
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN} more")
    for key, value in n.items():
        print(f"{key:24} {value}")


def judge(folder):
    h = History().read(folder)
    found = checker.check(h)
    return found, checker.numbers(h, found)


def run(options):
    rng = random.Random(options.seed)
    world = worlds.World(options, rng)
    print(f"seed {options.seed}, {options.durability}, faults {','.join(options.faults)}", flush=True)
    admin = nem = None
    good = False
    try:
        world.start()
        admin = Admin(world, random.Random(rng.random()))
        nem = nemesis.Nemesis(world, options.faults, random.Random(rng.random()), options.pause)
        admin.start()
        time.sleep(1.0)
        seconds = hurt(world, nem, options)
        caught_up = finish(world, admin)
        found, n = judge(world.histories)
        slowest = max(nem.recoveries, default=(0, "nothing"))
        n.update(seed=options.seed, durability=options.durability, seconds=round(seconds), acked_per_second=round(n["acked"] / seconds),
                 slowest_recovery_s=round(slowest[0], 3), slowest_recovery_of=slowest[1],
                 last_receiver_complete_s=caught_up[0], last_silent_complete_s=caught_up[1],
                 kills=len(world.killed), kills_by_target=dict(collections.Counter(world.killed.values())), faults=dict(nem.done))
        report(found, n)
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(n, indent=1) + "\n")
        reports = world.instance.sanitizer_reports()
        if reports:
            print(reports)
        good = not found and not reports and n["stored"] > 0
    finally:
        world.stop()
        if good and not options.keep:
            world.remove()
        else:
            print(f"kept in {world.folder}; the verdict again: scripts/chaos --check {world.histories}\n"
                  f"the same schedule: scripts/chaos --seed {options.seed} {options.same}")
    print("chaos " + ("passed" if good else "FAILED") + f" (seed {options.seed})")
    return good


def parse():
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--kills", type=int, default=0, help="go on until so many processes were killed")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--durability", default="process", choices=("process", "disk"))
    parser.add_argument("--faults", default="", help="of " + ", ".join(nemesis.FAULTS) + "; left out: all that need nothing special")
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--senders", type=int, default=20)
    parser.add_argument("--rate", type=float, default=500.0, help="messages a second of all senders")
    parser.add_argument("--pause", type=float, default=0.5, help="mean seconds between a recovery and the next fault")
    parser.add_argument("--json", help="file for the report")
    parser.add_argument("--keep", action="store_true", help="keep histories and data even if all is well")
    parser.add_argument("--check", metavar="FOLDER", help="only judge the histories there")
    o = parser.parse_args()
    o.faults = o.faults.split(",") if o.faults else [name for name, f in nemesis.FAULTS.items() if set(f.needs) <= {"proxy"}]
    unknown = set(o.faults) - set(nemesis.FAULTS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    if "clock" in o.faults and (SANITIZED or not worlds.faketime()):
        parser.error("the fault clock needs libfaketime and a build without sanitizers")
    o.same = f"--minutes {o.minutes:g} --durability {o.durability} --faults {','.join(o.faults)} --rate {o.rate:g} --pause {o.pause:g}"
    return o


def main():
    o = parse()
    if not o.check:
        sys.exit(0 if run(o) else 1)
    found, n = judge(o.check)
    report(found, n)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
