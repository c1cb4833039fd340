"""Names at a site and labels of a model: what is one, what is not, and that nothing is dropped in silence."""

import pytest

from dafne_dante.annotations.labels import LabelNames, label_key
from dafne_dante.errors import SettingsError


@pytest.mark.parametrize(
    "names",
    [
        (
            "left kidney",
            "Kidney (L)",
            "KIDNEY_LEFT",
            "kidneyLeft",
            "Kidney, lt.",
            "L Kidney",
            "kidney links",
            "kidney sx",
        ),
        ("right kidney", "Kidney R", "kidney-right", "RT_KIDNEY", "kidney dx", "rechte kidney"),
        ("white matter", "WhiteMatter", "white_matter", "  White  Matter ", "white-matter", "whitematter"),
        ("T12", "t12", " T12."),
        ("Nervus é", "nervus e\u0301"),
        ("L", "l"),
    ],
)
def test_spellings_of_one_name(names):
    assert len({label_key(name) for name in names}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("left kidney", "right kidney"),
        ("left kidney", "kidney"),
        ("disc T1-2", "disc T12"),
        ("L1", "L 2"),
        ("rectus femoris", "femoris"),
        ("liver", "livers"),
        ("left", "right"),
        ("muscle r a", "muscle l a"),
    ],
)
def test_names_that_are_not_one(one, other):
    assert label_key(one) != label_key(other)


def test_names_stand_for_labels_by_the_table_and_by_spelling():
    names = LabelNames({"liver": ("hepar", "Leber"), "left kidney": ("Niere li",)}, ignored=("Couch",))
    found = names.resolve(
        ("LEBER", "niere_links", "Kidney (R)", "couch", "tumour"), ("left kidney", "liver", "right kidney", "spleen")
    )
    assert found.values == {"LEBER": 2, "niere_links": 1, "Kidney (R)": 3}
    assert (found.unknown, found.missing, found.ignored) == (("tumour",), ("spleen",), ("couch",))


def test_the_table_may_name_what_the_model_calls_otherwise():
    names = LabelNames({"Liver": ("hepar",)})
    assert names.resolve(("HEPAR",), ("liver",)).values == {"HEPAR": 1}
    assert names.canonical("hepar") == "Liver"
    assert names.canonical(" spleen ") == "spleen"


def test_two_names_may_stand_for_one_label():
    names = LabelNames({"lesion": ("lesion 1", "lesion 2")})
    assert names.resolve(("lesion 1", "lesion 2"), ("lesion",)).values == {"lesion 1": 1, "lesion 2": 1}


def test_a_name_that_the_model_has_itself_wins_over_the_table():
    names = LabelNames({"kidneys": ("left kidney", "right kidney")})
    assert names.resolve(("left kidney",), ("kidneys", "left kidney")).values == {"left kidney": 2}


@pytest.mark.parametrize(
    ("synonyms", "ignored"),
    [
        ({"liver": ("hepar",), "spleen": ("HEPAR",)}, ()),
        ({"liver": ("hepar",)}, ("Hepar",)),
    ],
)
def test_a_name_that_would_stand_for_two_is_refused(synonyms, ignored):
    with pytest.raises(SettingsError, match=r"(?i)'hepar' to stand for one label"):
        LabelNames(synonyms, ignored)
