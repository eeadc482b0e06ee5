"""A run says that it compiles."""

import pytest

from encdec import hosts
from encdec.train.compiling import compiling


def test_what_is_compiled_is_said_before_and_its_seconds_after(capsys):
    with compiling("the step"):
        assert capsys.readouterr().out == "compiling the step … "
    assert capsys.readouterr().out == "0.0 s\n"


def test_what_goes_wrong_has_a_line_of_its_own(capsys):
    with pytest.raises(ValueError), compiling("the step"):
        raise ValueError
    assert capsys.readouterr().out == "compiling the step … \n"


def test_only_the_first_host_says_it(monkeypatch, capsys):
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    with compiling("the step"):
        pass
    assert capsys.readouterr().out == ""
