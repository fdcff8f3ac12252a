#!/usr/bin/python3
"""tests/push/sabotage.py [--only NAME,...] [--seed S] [--folder F]: the proof is checked on broken bridges.

Each break takes away one promise: it is edited into a copy of the tree, built, and apns_proof.py, small, must find it with this verdict. The first
is no break: there the proof must find nothing. --folder: work there and go on with what an earlier run built.
"""
import argparse
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "chaos"))
from sabotage_test import broken, configure, copy_tree, run_quietly  # noqa: E402

# edits: [(file, text, what takes its place)]; must: the proof's word for it, "" = it holds
Break = collections.namedtuple("Break", "what edits must")

BREAKS = {
    "sound": Break("nothing is broken", [], ""),
    "new-id": Break("a repeat has a new apns-id", [
        ("lib/push/ids.c", "\twrite_uuid(h, out->uuid);", "\trandombytes_buf(h, sizeof(h));\n\twrite_uuid(h, out->uuid);")], "other ids"),
    "unmarked-reset": Break("no maybe_dup after an unknown outcome", [
        ("lib/push/state.c", "\t\ts.life.maybe_dup = true;\n", "")], "not marked maybe_dup"),
    "unmarked-start": Break("no maybe_dup for what was under way at a death", [
        ("lib/push/outbox_db.c", "recovered = recovered + 1, flags = flags | 1 WHERE", "recovered = recovered + 1 WHERE")], "not marked maybe_dup"),
    "sent-unwritten": Break("INFLIGHT is not written before the send", [
        ("lib/push/outbox_db.c", "\tnumber(s, 2, op->state);\n",
         "\tnumber(s, 2, op->state == PUSH_STATE_INFLIGHT ? PUSH_STATE_READY : op->state);\n")], "not marked maybe_dup"),
    "ends-twice": Break("a final state is reached twice", [
        ("lib/push/outbox_db.c", "\t\t      \" WHERE row = ?1 AND done_ms = 0\"", "\t\t      \" WHERE row = ?1\""),
        ("lib/push/outbox_db.c", "\treturn step(db, s) && (!op->into",
         "\treturn step(db, s) && (!push_state_is_final(op->state) || step(db, s)) && (!op->into")], "not ended once"),
    "said-early": Break("stored is said before it is durable", [
        ("lib/push/flow.c", "\tb->pending += op->n;\n\toutbox_give(b->outbox, op);\n",
         "\tb->pending += op->n;\n\tb->stored = frame;\n\toutbox_give(b->outbox, op);\n")], "lost"),
    "403-costs-token": Break("a 403 speaks against the token", [
        ("services/apns-bridge/reaction.c", "\tif (out->class == PUSH_TOKEN_INVALID && c->status == 410)",
         "\tif (c->status == 403)\n\t\tout->class = PUSH_TOKEN_INVALID;\n\tif (out->class == PUSH_TOKEN_INVALID && c->status == 410)")],
        "token judged without a word of it"),
    "goaway-loses": Break("what a GOAWAY did not process is forgotten", [
        ("services/apns-bridge/pool.c", "\ttell(slot->pool, r);\n",
         "\tif (strcmp(r->result.reason, \"goaway\") == 0)\n\t\trequest_destroy(r);\n\telse\n\t\ttell(slot->pool, r);\n")], "not drained"),
    "goaway-repeats": Break("what a GOAWAY left under way counts as not processed", [
        ("services/apns-bridge/stream.c", "class == PUSH_UNKNOWN && !r->sent ?", "class == PUSH_UNKNOWN && (!r->sent || c->goaway) ?")],
        "not marked maybe_dup"),
    "reset-is-unsent": Break("a reset counts as surely not sent", [
        ("services/apns-bridge/stream.c", "class == PUSH_UNKNOWN && !r->sent ?", "class == PUSH_UNKNOWN ?")], "not marked maybe_dup"),
    "no-limit": Break("the peer's limit of streams is ignored until it is enforced", [
        ("services/apns-bridge/conn.c", "\treturn theirs < most ? theirs : most;", "\t(void)theirs;\n\t(void)most;\n\treturn CONN_STREAMS_MAX;"),
        ("services/apns-bridge/conn.c", "\tc->heard_ms = conn_now(c);\n\tif (!stream_session(c))",
         "\tc->heard_ms = conn_now(c);\n\tc->state = CONN_OPEN;\n\tif (!stream_session(c))")], "rule broken at the stand-in"),
    "guard-believes": Break("the guard believes every word", [
        ("lib/push/guard.c", "\treturn g->n >= PUSH_GUARD_LEAST && (g->invalid", "\treturn g->n > 1000000 && (g->invalid")], "tokens lost"),
    "ambiguous-ends": Break("an unknown outcome ends the job as accepted", [
        ("lib/push/state.c", "\t\ts.life.maybe_dup = true;\n\t\ts.effect = PUSH_EFFECT_BAD;\n\t\tcount_and_retry(&s, r, left_ms, random);\n", "")],
        "accepted by nobody"),
}


def build(folder, name):
    """A folder with the programs of the broken tree; only the bridge is another."""
    changed = broken(folder / "source", BREAKS[name])
    before = {path: path.read_text() for path in changed}
    try:
        for path, text in changed.items():
            path.write_text(text)
        run_quietly(["ninja", "-C", str(folder / "build"), "im-apns-bridge"], CCACHE_BASEDIR=str(folder), CCACHE_NOHASHDIR="1")
    finally:
        for path, text in before.items():
            path.write_text(text)
    programs = folder / name / "bin"
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir(parents=True)
    for path in (folder / "build/bin").iterdir():
        if path.name != "im-apns-bridge":
            (programs / path.name).symlink_to(path)
    shutil.copy(folder / "build/bin/im-apns-bridge", programs)
    return folder / name


def run(programs, seed):
    """The proof's report."""
    work = programs / "tmp"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    p = subprocess.run([sys.executable, HERE / "apns_proof.py", "--jobs", "3000", "--kills", "8", "--long-freezes", "0", "--seed", seed],
                       env=dict(os.environ, IM_BUILD=str(programs), IM_SKIP_INSTALL="1", TMPDIR=str(work)), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True)
    if not p.stdout:
        raise SystemExit(p.stderr[-4000:])
    return json.loads(p.stdout.splitlines()[-1])


def try_one(folder, name, seed):
    report = run(build(folder, name), seed)
    found = {**{what: list_[0] for what, list_ in report["wrong"].items()}, **{text.split(":")[0]: 1 for text in report["failed"]}}
    ok = BREAKS[name].must in found if BREAKS[name].must else report["verdict"] == "holds"
    print(f"{name:16} {'ok' if ok else 'FAILED':7} {', '.join(f'{n} {what}' for what, n in found.items()) or 'holds'}", flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BREAKS))
    parser.add_argument("--seed", default="7")
    parser.add_argument("--folder")
    options = parser.parse_args()
    folder = pathlib.Path(options.folder or tempfile.mkdtemp(prefix="im-sabotage-push-")).resolve()
    try:
        copy_tree(folder / "source")
        configure(folder / "source", folder / "build")
        run_quietly(["ninja", "-C", str(folder / "build"), "programs"], CCACHE_BASEDIR=str(folder), CCACHE_NOHASHDIR="1")
        good = [try_one(folder, name, options.seed) for name in options.only.split(",")]
    finally:
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{sum(good)} of {len(good)} as they must be (seed {options.seed})")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
