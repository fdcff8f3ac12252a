"""The shell examples of README.md and docs/protocol.md, run as they stand against a demo instance.

An example is an indented line that begins with mosquitto_pub, mosquitto_sub or mosquitto_rr. `-P ...` becomes the
demo's password and the port is added; a mosquitto_sub waits for one message while the examples behind it run.
"""
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from instance import ROOT, Instance  # noqa: E402

PAGES = ("README.md", "docs/protocol.md")


def examples(page):
    """Groups of lines that stand together, each line as words without its comment."""
    groups, group = [], []
    for line in (ROOT / page).read_text().splitlines() + [""]:
        if re.match(r"    mosquitto_(pub|sub|rr) ", line):
            group.append(shlex.split(line, comments=True))
        elif group:
            groups.append(group)
            group = []
    return groups


GROUPS = [(page, i, group) for page in PAGES for i, group in enumerate(examples(page))]


@pytest.fixture(scope="module")
def demo():
    with Instance(demo=True) as instance:
        lines = (instance.dir / "demo-credentials").read_text().splitlines()
        instance.users = dict(line.split() for line in lines)
        yield instance


def command(demo, words):
    words = list(words)
    words[words.index("...")] = demo.users[words[words.index("-u") + 1]]
    return [words[0], "-p", str(demo.port), *words[1:]]


def test_there_are_examples():
    assert {page for page, _, _ in GROUPS} == set(PAGES)


@pytest.mark.parametrize("page,i,group", GROUPS, ids=[f"{p}-{i}" for p, i, _ in GROUPS])
def test_examples_of_a_group_work_together(demo, page, i, group):
    listeners = [subprocess.Popen(command(demo, w) + ["-W", "3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                 for w in group if w[0] == "mosquitto_sub"]
    for words in group:
        if words[0] == "mosquitto_sub":
            continue
        more = ["-W", "10"] if words[0] == "mosquitto_rr" else []
        p = subprocess.run(command(demo, words) + more, capture_output=True, text=True, timeout=30)
        assert p.returncode == 0 and not p.stderr, (words, p.stderr)
        if words[0] == "mosquitto_rr":
            assert '"ok":true' in p.stdout.replace(" ", ""), (words, p.stdout)
    said = [p.communicate(timeout=30) for p in listeners]
    bodies = [w[w.index("-m") + 1] for w in group if w[0] == "mosquitto_pub" and "-m" in w and "/to/" in " ".join(w)]
    for out, err in said:
        assert "im/v1/in/evt/welcome" in out, (out, err)
        assert all(f'"body":"{b}"' in out for b in bodies), (out, err)


def test_every_request_of_the_page_has_a_method_that_exists(demo):
    methods = set(re.findall(r"im/v1/req/([a-z.]+)/r\d", (ROOT / "docs/protocol.md").read_text()))
    assert "history" in methods
    for method in methods:
        p = subprocess.run(["mosquitto_rr", "-V", "5", "-p", str(demo.port), "-i", "alice:docs", "-u", "alice", "-P", demo.users["alice"],
                            "-t", f"im/v1/req/{method}/d-{method}", "-e", f"im/v1/in/res/d-{method}", "-m", "{}", "-W", "10"],
                           capture_output=True, text=True, timeout=30)
        assert "unknown_method" not in p.stdout and p.stdout, (method, p.stdout, p.stderr)
