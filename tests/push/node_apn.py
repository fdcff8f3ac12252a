"""@parse/node-apn, fetched once beside the build so that the checkout stays clean."""
import json
import pathlib
import shutil
import subprocess

from drive import BUILD

HERE = pathlib.Path(__file__).resolve().parent / "node"


def problem():
    return next((f"{p} is not installed (scripts/install-packages.sh test)" for p in ("node", "npm") if not shutil.which(p)), None)


def fetch():
    there = BUILD / "push-node"
    shutil.copytree(HERE, there, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    lock, done = there / "package-lock.json", there / "node_modules/.package-lock.json"
    if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
        p = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, timeout=300)
        assert p.returncode == 0, p.stdout
    return there


def run(**options):
    p = subprocess.run(["node", "client.js", json.dumps(options)], cwd=fetch(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout.splitlines()[-1])
