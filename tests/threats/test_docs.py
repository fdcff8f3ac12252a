"""docs/threats.md and the tests name one another."""
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/threats.md"
BYSTANDERS = False


def test_the_table_names_tests_that_exist_and_all_of_them():
    tests = set()
    for folder in (HERE, HERE.parent / "e2e"):
        for path in folder.glob("test_*.py"):
            tests |= {(path.name[:-3], name) for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)}
    named = set(re.findall(r"`(test_\w+)::(test_\w+)`", PAGE.read_text()))
    assert not named - tests, "not there"
    assert not {t for t in tests if (HERE / f"{t[0]}.py").exists() and t[0] != "test_docs"} - named, "not in the table"


def test_every_row_of_the_threat_model_is_there():
    rows = {f"I{i}" for i in range(1, 9)} | {f"S{i}" for i in range(1, 8)} | {f"P{i}" for i in range(1, 13)} | {f"X{i}" for i in range(1, 9)}
    rows |= {f"H{i}" for i in range(1, 9)} | {f"J{i}" for i in range(1, 11)} | {f"A{i}" for i in range(1, 15)}
    assert rows <= set(re.findall(r"^\| ([HISPXJA]\d+) \|", PAGE.read_text(), re.M))
