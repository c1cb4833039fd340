"""What a person reads in Dafne stands in one file, ready for translation, and nothing stands there for nobody."""

import ast
import re
from pathlib import Path

import pytest

import dafne_dante
from dafne_dante.host.dafne_qt import words

FOLDER = Path(dafne_dante.__file__).parent / "host" / "dafne_qt"
SOURCES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.py")) if path.name != "words.py"}
NOBODY_READS = {"the study in Dafne", "improved here"}
"""The name of a study within the program, and how the status of a version begins."""
SENTENCE = re.compile(r"[A-Za-z]{2,},? [A-Za-z]{2,}")


def sentences(source):
    """Texts of several words, but for docstrings, faults (they have their own words) and styles."""
    tree, left = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left.add(node.value)
        if isinstance(node, ast.Raise):
            left |= set(ast.walk(node))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in left]
    return [text for text in texts if isinstance(text, str) and SENTENCE.search(text) and "{ background" not in text]


@pytest.mark.parametrize("name", SOURCES)
def test_sentences_stand_in_words(name):
    assert set(sentences(SOURCES[name])) <= NOBODY_READS


def test_a_sentence_elsewhere_would_be_found():
    source = '"""What it is."""\nraise ValueError("not this one")\nbutton.setText("Press this one")\n'
    assert sentences(source) == ["Press this one"]


def test_every_word_is_used():
    everything = "\n".join(SOURCES.values())
    used = set(re.findall(r"words\.([A-Za-z_]+)", everything))
    used |= set(re.findall(r"from dafne_dante.host.dafne_qt.words import ([A-Z_]+)", everything))
    assert set(words.__all__) - used == set()
