"""What a person sees: lines anywhere, bars on a terminal only, nothing where quiet is asked for."""

import io

import pytest
from rich.console import Console

from kzoo.recipes import progress


@pytest.fixture
def terminal(monkeypatch):
    """Standard output as a terminal of 100 columns; what is written to it."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, highlight=False, markup=False)
    monkeypatch.setattr(progress, "console", console)
    return out


def test_off_a_terminal_there_are_plain_lines_and_no_bars(capsys):
    assert list(progress.track("abc", "reading")) == ["a", "b", "c"]
    progress.show("[3] classes: a & b", style="bold")
    assert capsys.readouterr().out == "[3] classes: a & b\n"


def test_a_line_is_not_broken(capsys):
    progress.show("x " * 200)
    assert capsys.readouterr().out.count("\n") == 1


def test_on_a_terminal_there_is_a_bar(terminal):
    assert list(progress.track(iter("abc"), "reading [0, 1]", 3)) == ["a", "b", "c"]
    assert "reading [0, 1]" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_bars_within_bars(terminal):
    found = [(a, b) for a in progress.track("ab", "outer") for b in progress.track("cd", "inner")]
    assert len(found) == 4


def test_quiet_writes_nothing(terminal):
    with progress.quiet(), progress.quiet(False), progress.bar("working", 2) as bar:
        bar.advance(description="still working")
        progress.show("a line")
    assert terminal.getvalue() == ""
    progress.show("a line")
    assert "a line" in terminal.getvalue()


def test_a_bar_goes_on_through_its_steps(terminal):
    with progress.bar("one", 2) as bar:
        bar.advance(description="two")
    assert "two" in terminal.getvalue()
