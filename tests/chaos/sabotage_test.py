#!/usr/bin/python3
"""The checker is checked on broken builds: each of sabotages.py is built, run under faults, and must be found out with its verdict.

    tests/chaos/sabotage_test.py [--only NAME,...] [--minutes M] [--control] [--folder F] [--seed S] [--keep]

The tree is copied and built once, then edited, built and put back for each; its programs go into a folder of their own. --control
runs the schedules on the sound copy instead: there they must find nothing. A break that is not found, or with a verdict that it
does not explain, is a failure; one that is found says so within --minutes and the time to become quiet.
"""
import argparse
import filecmp
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from sabotages import SABOTAGES

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUN_LIMIT_S = 420  # of one run; it ends by itself long before


def copy_changed(source, to):
    """Times are those of the copying: what an earlier run built of a broken file must not look newer than the sound one."""
    if not os.path.exists(to) or not filecmp.cmp(source, to, shallow=False):
        shutil.copy(source, to)


def copy_tree(to):
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns("build*", ".git", "var", "__pycache__", "corpus"), symlinks=True,
                    dirs_exist_ok=True, copy_function=copy_changed)


def configure(source, build):
    command = ["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    if shutil.which("ccache"):
        command.append("-DCMAKE_C_COMPILER_LAUNCHER=ccache")
    run_quietly(command)


def make(source, build):
    """The compiler sees names relative to the copy, so that a cache of an earlier copy serves."""
    run_quietly(["ninja", "-C", str(build), "programs", "im_inject"], CCACHE_BASEDIR=str(source.parent), CCACHE_NOHASHDIR="1")


def run_quietly(command, **env):
    p = subprocess.run(command, env=dict(os.environ, **env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if p.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {p.returncode}\n{p.stdout[-4000:]}")


def broken(source, sabotage):
    """{path: text} of the files that it changes."""
    changed = {}
    for name, text, new in sabotage.edits:
        now = changed.get(source / name) or (source / name).read_text()
        if now.count(text) != 1:
            raise LookupError(f"{name} has {now.count(text)} times what is to be broken: {text!r}\nThe code has moved on: mend sabotages.py")
        changed[source / name] = now.replace(text, new)
    return changed


def test_every_place_is_there():
    """For each run of all tests, which does not build the broken ones."""
    for sabotage in SABOTAGES.values():
        assert broken(ROOT, sabotage)


def build_broken(folder, name):
    """A folder with the programs of the broken tree."""
    changed = broken(folder / "source", SABOTAGES[name])
    before = {path: path.read_text() for path in changed}
    try:
        for path, text in changed.items():
            path.write_text(text)
        make(folder / "source", folder / "build")
        shutil.copytree(folder / "build/bin", folder / name / "bin", dirs_exist_ok=True)
    finally:
        for path, text in before.items():
            path.write_text(text)
    return folder / name


def run(build, schedule, options, seed):
    """{verdict: count} of one chaos run, its report and what it printed."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="im-run-"))
    report = work / "report.json"
    command = [sys.executable, str(HERE / "chaos.py"), "--minutes", str(options.minutes), "--rate", str(options.rate), "--seed", str(seed),
               "--json", str(report), *schedule]
    p = subprocess.Popen(command, env=dict(os.environ, IM_BUILD=str(build), IM_SKIP_INSTALL="1", TMPDIR=str(work)), stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = p.communicate(timeout=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        p.send_signal(signal.SIGINT)  # it takes its instance along
        said, _ = p.communicate()
    n = json.loads(report.read_text()) if report.exists() else None
    if not options.keep:
        shutil.rmtree(work, ignore_errors=True)
    return n, said


def judge(n, sabotage, control):
    """None: as it must be."""
    if n is None:
        return "the run came to no verdict"
    found = set(n["verdicts"])
    if control:
        return f"found on the sound build: {n['verdicts']}" if found else None
    if sabotage.must not in found:
        return f"not found out: {n['verdicts'] or 'every rule holds'}"
    if found - {sabotage.must} - sabotage.may:
        return f"has verdicts that it does not explain: {n['verdicts']}"
    return None


def try_one(folder, name, options, rng):
    sabotage, seed = SABOTAGES[name], rng.randrange(1 << 30)
    began = time.monotonic()
    build = folder / "build" if options.control else build_broken(folder, name)
    built = time.monotonic()
    n, said = run(build, sabotage.schedule, options, seed)
    wrong = judge(n, sabotage, options.control)
    verdicts = ", ".join(f"{count} {v}" for v, count in sorted((n or {"verdicts": {}})["verdicts"].items())) or "no verdict"
    more = f"{n['acked']} acknowledged, {n['kills']} kills" if n else ""
    print(f"{name:20} {'FAILED' if wrong else 'ok':7} {verdicts:60} {more}; built {built - began:.0f} s, ran {time.monotonic() - built:.0f} s, seed {seed}", flush=True)
    if wrong:
        print(f"{wrong}\n{said[-3000:]}", flush=True)
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SABOTAGES))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--folder", help="work there, go on with what an earlier run built there, and leave it")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--keep", action="store_true", help="the histories of the runs")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    folder = pathlib.Path(options.folder or tempfile.mkdtemp(prefix="im-sabotage-")).resolve()
    try:
        copy_tree(folder / "source")
        configure(folder / "source", folder / "build")
        make(folder / "source", folder / "build")
        good = [try_one(folder, name, options, rng) for name in options.only.split(",")]
    finally:
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)
    what = "schedules found nothing on the sound build" if options.control else "broken builds found out"
    print(f"{sum(good)} of {len(good)} {what} (seed {options.seed})")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
