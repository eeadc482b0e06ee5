"""The bar of long loops."""

import threading

from encdec.progress import Bar


def test_a_bar_leaves_no_thread_behind(monkeypatch):
    monkeypatch.setattr(Bar, "monitor", None)
    before = threading.enumerate()
    assert list(Bar(range(3), "counting")) == [0, 1, 2]
    assert threading.enumerate() == before


def test_a_log_takes_no_bar(capsys):
    with Bar(None, "counting", total=2) as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")
