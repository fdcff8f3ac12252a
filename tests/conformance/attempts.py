"""Runs one program of a suite with a deadline, again if it fails: a name passes if one of three tries does.

The suites were written for an idle machine, with waits of a tenth of a second in many places.
"""
import os
import signal
import subprocess

TRIES = 3


def attempt(command, log, limit, **popen):
    """"pass", "fail" or "hang". What it prints goes to the file `log`; what it leaves behind is killed."""
    with open(log, "ab") as out:
        p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **popen)
        try:
            verdict = "pass" if p.wait(limit) == 0 else "fail"
        except subprocess.TimeoutExpired:
            verdict = "hang"
    try:
        os.killpg(p.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    p.wait()
    return verdict


def attempts(command, log, limit, **popen):
    """`command` is a function: ports are chosen anew for each try."""
    for _ in range(TRIES):
        verdict = attempt(command(), log, limit, **popen)
        if verdict != "fail":
            break  # what hangs, hangs again
    return verdict
