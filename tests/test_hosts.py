"""Several hosts: what they are told, how they share a split, and that none waits for another's
mistake. Here hosts are threads; `test_several_hosts.py` has processes."""

import dataclasses
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from flax import serialization
from PIL import Image

import encdec
from encdec import hosts
from encdec.data.datasets import Folder
from encdec.errors import CheckpointError, InputError
from encdec.evaluate import Seen, evaluate, evaluator
from encdec.train import folder
from encdec.train.folder import check_same, check_shared, locked
from encdec.train.loop import first_state


@pytest.fixture
def as_hosts(monkeypatch):
    """Calls action(host) on so many hosts, threads of this process; what each returns or raises."""

    def called(number, action):
        here, met, given = threading.local(), threading.Barrier(number, timeout=120), {}

        def exchange(tree):
            given[here.index] = serialization.msgpack_serialize(tree)
            met.wait()
            every = [serialization.msgpack_restore(given[host]) for host in range(number)]
            met.wait()
            return every

        def act(index):
            here.index = index
            try:
                return action(index)
            except InputError as error:
                return error

        with monkeypatch.context() as patch:
            patch.setattr(jax, "process_count", lambda: number)
            patch.setattr(jax, "process_index", lambda: getattr(here, "index", 0))
            patch.setattr(hosts, "exchange", exchange)
            with ThreadPoolExecutor(number) as pool:
                return list(pool.map(act, range(number)))

    return called


@pytest.mark.parametrize(
    "told, heartbeat, wanted",
    [
        ("here:1,2", None, "NUMBER OF HOSTS,INDEX"),
        ("here:1,two,0", None, "NUMBER OF HOSTS,INDEX"),
        ("here:1,2,2", None, "index from 0 to 1"),
        ("here:1,2,0", "soon", "whole seconds, 1 or more; got 'soon'"),
        ("auto", "0", "whole seconds, 1 or more; got '0'"),
    ],
)
def test_hosts_that_cannot_be_are_refused(told, heartbeat, wanted, monkeypatch):
    monkeypatch.setenv("ENCDEC_HOSTS", told)
    if heartbeat is not None:
        monkeypatch.setenv("ENCDEC_HEARTBEAT", heartbeat)
    with pytest.raises(InputError, match=wanted):
        hosts.join()


@pytest.mark.parametrize(
    "told, joined", [("auto", (None, None, None)), ("a:1,4,3", ("a:1", 4, 3))], ids=str
)
def test_hosts_join_with_the_heartbeat_that_is_asked_for(told, joined, monkeypatch):
    calls = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *args, **more: calls.append(args + (more,))
    )
    monkeypatch.setenv("ENCDEC_HOSTS", told)
    hosts.join()
    monkeypatch.setenv("ENCDEC_HEARTBEAT", "7")
    hosts.join()
    assert calls == [
        (*joined, {"heartbeat_timeout_seconds": seconds}) for seconds in (hosts.HEARTBEAT, 7)
    ]


def test_without_others_a_host_is_alone(monkeypatch):
    monkeypatch.delenv("ENCDEC_HOSTS", raising=False)
    hosts.join()
    assert hosts.is_first() and hosts.exchange({"x": 1}) == [{"x": 1}]
    assert hosts.share(3) == (0, 1, 2)
    hosts.leave(9)  # and goes on


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_every_example_is_one_hosts(number, as_hosts):
    shares = as_hosts(number, lambda host: hosts.share(5))
    assert sorted(i for share in shares for i in share) == list(range(5))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("number", [2, 3, 8])
def test_the_sums_of_any_number_of_hosts_are_those_of_one(number, tiny, as_hosts, monkeypatch):
    seen = []
    monkeypatch.setattr(encdec.Segment, "scores", lambda task, sums: seen.append(sums) or {})
    variables = first_state(tiny()).variables()
    step = evaluator(tiny())
    evaluate(tiny(), variables, step)  # five images
    wanted, many = seen.pop(), tiny(batch=4 * number)
    assert wanted["confusion"].sum() == 5 * 32 * 32
    assert as_hosts(number, lambda host: evaluate(many, variables, step)) == [{}] * number
    assert len(seen) == number
    for found in seen:
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert found[name].dtype == np.int64
            np.testing.assert_array_equal(found[name], wanted[name])


def test_so_is_what_a_page_shows_of_each_image(tiny, as_hosts):
    variables, step, wanted = first_state(tiny()).variables(), evaluator(tiny()), Seen()
    evaluate(tiny(), variables, step, None, wanted)
    every = [Seen() for _ in range(2)]
    as_hosts(2, lambda host: evaluate(tiny(batch=8), variables, step, None, every[host]))
    for seen in every:
        assert seen.images == wanted.images and list(seen.images) == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(seen.confusion, wanted.confusion)


def test_so_are_the_scores_of_whole_images(tiny, as_hosts):
    task = encdec.Segment(1, mode="binary", also=("roc",))
    one = tiny(task=task, model=tiny().model.clone(head=encdec.Pixel(1)))
    variables = first_state(one).variables()
    wanted = evaluate(one, variables, evaluator(one))
    for found in as_hosts(2, lambda host: evaluate(one, variables, evaluator(one))):
        assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)


def test_so_are_the_scores_of_boxes(detector, as_hosts):
    one, two = detector("retinanet"), detector("retinanet", batch=8)
    variables, step = first_state(one).variables(), evaluator(one)
    wanted = evaluate(one, variables, step)
    for found in as_hosts(2, lambda host: evaluate(two, variables, step)):
        assert found == pytest.approx(wanted, abs=1e-6, nan_ok=True)


def test_a_bad_file_on_one_host_ends_all(tiny, as_hosts, tmp_path):
    for i in range(4):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.new(mode, (32, 32)).save(tmp_path / kind / f"{i}.png")
    path = tmp_path / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    bad = tiny(data=Folder(tmp_path, names=tuple("abcdefgh"), split="all"), batch=8)
    variables, step = first_state(bad).variables(), evaluator(bad)
    first, second = as_hosts(2, lambda host: evaluate(bad, variables, step))
    assert str(first) == f"host 1: {second}" and "1.png" in str(second)


@pytest.mark.parametrize("kind", [InputError, CheckpointError])
def test_what_is_wrong_on_one_host_ends_all(kind, as_hosts):
    def action(host):
        with hosts.together():
            if host == 2:
                raise kind("no room")

    said = as_hosts(3, action)
    assert [type(error) for error in said] == [kind] * 3
    assert [str(error) for error in said] == ["host 2: no room"] * 2 + ["no room"]


def test_other_flags_and_other_data_on_a_host_are_refused(tiny, as_hosts, tmp_path):
    def same(change, examples):
        given = ((tiny(), {"train": 5}), (change(), {"train": examples}))
        return as_hosts(2, lambda host: check_same(*given[host]))

    assert same(tiny, 5) == [None, None]
    elsewhere = dataclasses.replace(tiny().data, root=tmp_path)
    assert same(lambda: tiny(data=elsewhere), 5) == [None, None]
    first, second = same(lambda: tiny(seed=3, batch=8), 5)
    assert "those of --batch, --seed differ" in str(second) and str(first) == f"host 1: {second}"
    first, second = same(tiny, 4)
    assert (
        "{'train': 4} examples, {'train': 5} on the first" in str(second)
        and str(first) == f"host 1: {second}"
    )


def test_a_run_folder_that_is_not_shared_is_refused(as_hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "PATIENCE", 0.3)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "environment.json").write_text("now")
    assert as_hosts(2, lambda host: check_shared(tmp_path / "0")) == [None, None]
    first, second = as_hosts(2, lambda host: check_shared(tmp_path / str(host)))
    assert str(first) == f"host 1: {second}" and "a file system that they share" in str(second)


def test_a_folder_that_a_host_sees_late_is_waited_for(as_hosts, tmp_path):
    path, late = tmp_path / "environment.json", tmp_path / "late"
    path.write_text("now")

    def action(host):
        if host:
            late.mkdir()
            threading.Timer(0.3, lambda: (late / "environment.json").write_text("now")).start()
        return check_shared(late if host else tmp_path)

    assert as_hosts(2, action) == [None, None]


def test_the_first_host_alone_holds_the_lock(as_hosts, tmp_path):
    def action(host):
        with locked(tmp_path):
            return "in"

    with locked(tmp_path):
        first, second = as_hosts(2, action)
    assert "in use by another process" in str(first) and str(second) == f"host 0: {first}"
    assert as_hosts(2, action) == ["in", "in"]


def test_a_host_among_others_leaves_at_once(monkeypatch):
    codes = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "LEAVING", 0.0)
    monkeypatch.setattr(os, "_exit", codes.append)
    hosts.leave(2)
    assert codes == [2]
