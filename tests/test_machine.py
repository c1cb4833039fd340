"""Whether somebody is at the machine is asked of the system, in the way that it has."""

from dafne_dante.plugin import machine


def test_this_machine_answers():
    here = machine.SystemMachine()
    assert isinstance(here.is_on_power(), bool)
    assert isinstance(here.is_idle(), bool)


def test_a_terminal_that_was_just_used_is_told(tmp_path):
    (tmp_path / "pts").mkdir()
    assert machine._terminal_silence_s(tmp_path) is None
    (tmp_path / "pts" / "0").write_text("")
    assert machine._terminal_silence_s(tmp_path) < 60
