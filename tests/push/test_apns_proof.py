"""The proof of apns_proof.py, small: each trouble once, the bridge killed eight times. The whole one: tests/push/apns_proof.py --jobs 100000 --kills 100."""
import json
import os
import shutil

from apns_proof import TROUBLES, Proof


def test_killed_in_every_trouble_each_job_ends_once():  # 4, 6, 8, 9, 10, 12, 15, 41
    proof = Proof(3000, 8, os.environ.get("IM_SEED", str(int.from_bytes(os.urandom(4), "big"))))
    good, report = proof.run()
    assert good, (proof.folder, json.dumps(report))
    assert report["bridge_kills"] == 8 and set(report["troubles"]) == set(TROUBLES) and report["standin_starts"] >= 2, report
    assert report["states"]["accepted"] > 500 and report["accepted_twice_or_more"] > 0, report
    shutil.rmtree(proof.folder)
