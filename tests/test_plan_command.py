"""`plan` as a person and a program use it; and what it plans can be trained, stored and read again."""

import json

import pytest
from sites import without_voxels, write_cases

from dafne_dante.models.plan import plan_from_net_metadata


@pytest.fixture
def cases(tmp_path):
    return write_cases(tmp_path / "cases", (1, 2, 3), shape=(40, 36, 24))


def test_one_object_with_the_plan_and_its_reasons(command, cases):
    code, out, err = command("plan", "--data", cases, "--memory-gb", 2, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    answer = json.loads(out)
    assert answer.keys() == {"plan", "why", "memory", "fingerprint", "net_metadata", "taken", "left"}
    plan = answer["plan"]
    assert (plan["architecture"], plan["patch"], plan["labels"]) == ("unet3d", [24, 40, 40], ["ball", "box"])
    assert plan["batch_size"] == 2
    assert answer["memory"]["device"] in ("cpu", "gpu")
    assert answer["memory"]["estimated_gb"] <= answer["memory"]["budget_gb"] == 2.0
    assert answer["why"]["patch"].startswith("24 x 40 x 40 because the median image has 24 x 40 x 36 voxels")
    assert answer["fingerprint"]["labels"]["box"] == {"cases": 3, "drawn_ml": 1.728}
    assert plan_from_net_metadata(answer["net_metadata"]).patch == (24, 40, 40)
    assert "took 3 cases" in err
    assert str(cases.parent) not in out + err


def test_a_table_for_a_person(command, cases):
    code, out, _ = command("plan", "--data", cases, "--architecture", "dynunet", "--memory-gb", 0.3)
    assert code == 0
    rows = dict(line.split("  ", 1) for line in out.splitlines())
    assert list(rows) == ["architecture", "spacing", "patch", "depth", "channels", "batch size", "memory"]
    assert rows["architecture"].strip() == "dynunet because it was asked for"
    assert "of the 0.30 GB that may be used" in rows["patch"] or "multiples of" in rows["patch"]


def test_the_budget_is_found_where_none_is_given(command, cases):
    code, out, _ = command("plan", "--data", cases, "--json")
    assert code == 0
    assert "free" in json.loads(out)["why"]["memory"] or "does not tell" in json.loads(out)["why"]["memory"]


@pytest.mark.parametrize(
    "options", [("--architecture", "vnet"), ("--memory-gb", "0"), ("--memory-gb", "-3"), ("--memory-gb", "nan")]
)
def test_usage(command, cases, options):
    code, out, err = command("plan", "--data", cases, *options)
    assert (code, out) == (2, "")
    assert options[0] in err


def test_what_is_refused_is_one_line(command, cases, tmp_path):
    for options, reason in (
        (("--data", cases, "--memory-gb", 0.01), "expected a memory budget of at least"),
        (("--data", tmp_path / "cases" / "labelsTr"), "expected"),
        ((), "name a folder with --data"),
    ):
        code, out, err = command("plan", *options, "--json")
        assert (code, out) == (1, "")
        assert reason in err.strip().splitlines()[-1]
        assert "Traceback" not in err
        assert str(tmp_path) not in err


def test_a_faulty_study_is_left_out_only_where_that_is_wished(command, cases):
    without_voxels(cases / "imagesTr" / "c2_0000.nii.gz")
    assert command("plan", "--data", cases, "--json")[0] == 1
    code, out, _ = command("plan", "--data", cases, "--skip-faulty", "--json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["fingerprint"]["cases"], len(answer["taken"]), len(answer["left"])) == (2, 2, 1)
