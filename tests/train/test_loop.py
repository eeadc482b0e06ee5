"""A whole run: interrupted, resumed, compiled once, stopped."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import encdec
from encdec import parallel
from encdec.checkpoint import Checkpoints
from encdec.data.border import Border
from encdec.errors import InputError
from encdec.evaluate import evaluate, evaluator
from encdec.report import history
from encdec.train import loop
from encdec.train.loop import run, shapes_of_state, variables_of
from encdec.train.optimizer import Optimizer

NAN = float("nan")


def state_of(experiment, folder):
    checkpoints = Checkpoints(folder / "checkpoints", keep=experiment.keep)
    state = checkpoints.restore(shapes_of_state(experiment))
    checkpoints.close()
    return state


def bits(tree):
    return {
        jax.tree_util.keystr(path): np.asarray(x).tobytes()
        for path, x in jax.tree.leaves_with_path(tree)
    }


def numbers(folder):
    """The lines of metrics.jsonl without what a clock or an allocator said."""
    timed = {"images_per_s", "memory_mib", "waiting"}
    return [{k: v for k, v in line.items() if k not in timed} for line in history(folder)]


def interrupted(experiment, folder, monkeypatch, after):
    """Runs until that many batches were read, then once more."""
    read = loop.train_batches

    def failing(*args, **settings):
        for number, batch in enumerate(read(*args, **settings)):
            if number == after:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_batches", failing)
        with pytest.raises(KeyboardInterrupt):
            run(experiment, folder)
    return run(experiment, folder)


def equal(scores, others):
    return scores.keys() == others.keys() and all(
        np.array_equal(scores[name], others[name], equal_nan=True) for name in scores
    )


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tiny, finished, tmp_path, monkeypatch):
    experiment = tiny(tensorboard=True)
    scores = interrupted(experiment, tmp_path, monkeypatch, after=6)
    assert numbers(tmp_path) == numbers(finished)
    assert [line["step"] for line in numbers(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert bits(state_of(experiment, tmp_path)) == bits(state_of(experiment, finished))
    assert equal(scores, run(experiment, finished))


@pytest.mark.slow
def test_so_does_one_that_accumulates_and_averages_under_pmap(tiny, tmp_path, monkeypatch):
    experiment = tiny(optimizer=Optimizer(accumulate=3, ema=0.9), driver="pmap")
    run(experiment, tmp_path / "unbroken")
    interrupted(experiment, tmp_path / "broken", monkeypatch, after=5)  # 4 is within an update
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "unbroken")
    one, other = (state_of(experiment, tmp_path / name) for name in ("broken", "unbroken"))
    assert one.ema is not None and bits(one) == bits(other)


def test_a_run_and_its_resumption_compile_one_program_each(tiny, tmp_path, monkeypatch):
    made = []

    def remembered(experiment):
        made.append(trainer(experiment))
        return made[-1]

    trainer = loop.trainer
    monkeypatch.setattr(loop, "trainer", remembered)
    interrupted(tiny(steps=14, save_every=2), tmp_path, monkeypatch, after=11)
    assert [step.programs() for step in made] == [1, 1]


def test_a_finished_run_is_only_scored_again(tiny, finished):
    before = (finished / "metrics.jsonl").read_text()
    scores = run(tiny(tensorboard=True), finished)
    assert (finished / "metrics.jsonl").read_text() == before
    said = history(finished)[-1]["val"]
    assert {k: v for k, v in scores.items() if np.isfinite(v)} == {
        k: v for k, v in said.items() if v is not None
    }


def test_its_checkpoint_gives_the_scores_that_it_reported(tiny, finished):
    experiment = tiny(tensorboard=True)
    scores = evaluate(experiment, variables_of(experiment, finished), evaluator(experiment))
    assert scores["mean_iou"] == history(finished)[-1]["val"]["mean_iou"]


def test_the_folder_holds_what_was_promised(finished):
    names = {path.name for path in finished.iterdir()}
    promised = {"experiment.json", "environment.json", "metrics.jsonl", "checkpoints"}
    promised |= {"metrics.csv", "evaluation.json"}
    assert promised | {"report.html", "tensorboard"} <= names
    assert list((finished / "tensorboard").glob("events.out.tfevents.*"))


def test_metrics_are_strict_json(finished):
    for text in (finished / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text, parse_constant=pytest.fail)
        assert line["step"] >= 1 and ("loss" in line or "val" in line)


def test_losses_fall_and_rates_follow_the_schedule(tiny, finished):
    lines, rate = [x for x in history(finished) if "loss" in x], Optimizer().rate_at(8)
    assert [line["rate"] for line in lines] == [float(rate(i)) for i in range(8)]
    assert lines[0]["memory_mib"] > 0


def test_a_border_weighs_the_loss(tiny, finished, tmp_path):
    data = dataclasses.replace(tiny().data, border=Border())
    run(tiny(data=data, steps=2), tmp_path)
    pairs = zip(history(tmp_path)[:2], history(finished), strict=False)
    assert all(abs(one["loss"] - other["loss"]) > 1e-3 for one, other in pairs)


@pytest.fixture
def spoiled(monkeypatch):
    """Makes the pixels' weights of some batches, counted from 1, something else than 1."""

    def of(steps, value):
        read = loop.train_batches

        def changed(*args, start=0, **settings):
            for step, batch in enumerate(read(*args, start=start, **settings), start + 1):
                weight = np.ones(batch["label"].shape, np.float32)
                yield batch | {"weight": weight * (value if step in steps else 1)}

        monkeypatch.setattr(loop, "train_batches", changed)

    return of


@pytest.mark.parametrize(
    "value, driver, more",
    [(NAN, "jit", {}), (float("inf"), "pmap", {"optimizer": Optimizer(ema=0.9, clip=1.0)})],
)
def test_a_step_that_is_not_finite_changes_nothing(value, driver, more, tiny, tmp_path, spoiled):
    """BatchNorm's statistics, the optimizer's state and the average included; it is counted."""
    spoiled([3, 6], value)
    experiment = tiny(save_every=1, steps=6, driver=driver, **more)
    run(experiment, tmp_path)
    assert [line.get("skipped", 0) for line in history(tmp_path)] == [0, 0, 1, 1, 1, 2, 0]
    assert not np.isfinite(history(tmp_path)[2]["loss"] or NAN)
    after = state_of(experiment, tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.manager.delete(6)
    checkpoints.close()
    before = state_of(experiment, tmp_path)
    assert (int(before.step), int(after.step)) == (5, 6)
    assert (before.bad.tolist(), after.bad.tolist()) == ([0, 1], [1, 2])
    assert bits(before.replace(step=0, bad=0)) == bits(after.replace(step=0, bad=0))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))


@pytest.mark.parametrize("log_every, at", [(1, 7), (100, 8)])
def test_a_run_ends_when_too_many_steps_in_a_row_are_not_finite(
    log_every, at, tiny, tmp_path, spoiled
):
    spoiled(range(6, 99), NAN)
    experiment = tiny(patience=2, log_every=log_every, steps=50)
    said = rf"{at - 5} steps in a row up to {at} gave no finite numbers.*--optimizer.rate"
    with pytest.raises(InputError, match=said):
        run(experiment, tmp_path)
    state = state_of(experiment, tmp_path)
    assert int(state.step) == 4
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_a_head_of_other_classes_than_the_data_is_refused(tiny, tmp_path):
    experiment = tiny(task=encdec.Segment(7))
    with pytest.raises(InputError, match="data of 8 classes.*got --task.classes 7"):
        run(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_is_refused_before_a_folder_is_made(tiny, tmp_path):
    with pytest.raises(InputError, match="multiple of the 4 devices; got 6"):
        run(tiny(batch=6), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_checkpoints_cannot_be_scored(tiny, tmp_path):
    with pytest.raises(InputError, match="wanted a checkpoint under .*: train first"):
        variables_of(tiny(), tmp_path)


def test_evaluation_starts_from_the_average_where_there_is_one(tiny):
    state = loop.first_state(tiny(optimizer=Optimizer(ema=0.9)))
    assert state.variables()["params"] is state.ema
    assert parallel.replicated(state).step.shape == ()


@pytest.mark.paper(
    "FCN §4.2",
    says="FCN-16s is initialised with the parameters of FCN-32s, its new score layer with zeros",
    does="`--start RUN` takes what both have",
    differs="a new learned deconvolution starts bilinear",
)
def test_a_run_can_start_from_another_ones_checkpoint(tiny, tmp_path, capsys):
    """FCN-16s from FCN-32s: the score layer of the skip is new, and zero."""

    def stage(strides, **more):
        model = encdec.EncoderDecoder(
            encdec.Plain((4, 8, 8), norm="batch"),
            encdec.FCN(strides=strides, channels=8),
            encdec.Pixel(8, scores=True),
        )
        return tiny(model=model, steps=2, **more)

    first, second = stage((4,)), stage((2, 4), start=tmp_path / "first")
    run(first, tmp_path / "first")
    taken = loop.started(loop.first_state(second), second).variables()
    assert "new: decoder/lateral_s2/conv/bias, decoder/lateral_s2" in capsys.readouterr().out
    given = variables_of(first, tmp_path / "first")
    assert bits(given["batch_stats"]) == bits(taken["batch_stats"])
    assert bits(given["params"]["encoder"]) == bits(taken["params"]["encoder"])
    decoders = [v["params"]["decoder"] for v in (given, taken)]
    assert bits(decoders[0]["lateral_s4"]) == bits(decoders[1]["lateral_s4"])
    assert not np.any(decoders[1]["lateral_s2"]["conv"]["kernel"])
    run(second, tmp_path / "second")
    assert int(state_of(second, tmp_path / "second").step) == 2
    out = capsys.readouterr().out
    assert "arrays from" in out and out.count("compiling the step … ") == 1
    assert out.index("compiling the step … ") < out.index("step 1/2")
    run(second, tmp_path / "second")
    assert "arrays from" not in capsys.readouterr().out  # only at the beginning


def test_a_run_can_start_from_an_encoders_weights(tiny, tmp_path):
    """Their pixels' mean and deviation must be the model's own."""
    encoder = encdec.Plain((4, 8), norm="batch", mean=(0.25,))
    decoder, head = encdec.UNet(strides=(1, 2), channels=(4,)), encdec.Pixel(8)
    variables = encoder.init(jax.random.key(1), jax.numpy.zeros((1, 8, 8, 3)), train=False)
    encdec.weights.save(tmp_path / "weights", encoder, variables)
    model = encdec.EncoderDecoder(encoder, decoder, head)
    second = tiny(model=model, start=tmp_path / "weights")
    taken = loop.started(loop.first_state(second), second).variables()
    for kind in ("params", "batch_stats"):
        assert bits(taken[kind]["encoder"]) == bits(variables[kind])
    other = model.clone(encoder=encoder.clone(mean=(0.5,)))
    said = r"of mean \(0.25,\), not .*: say --model.encoder.mean 0.25$"
    with pytest.raises(InputError, match=said):
        run(tiny(model=other, start=tmp_path / "weights"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_the_weights_mean_must_be_the_models_own(tiny, tmp_path):
    encoder = encdec.mobilenet_v3_small().clone(table=((3, 8, 8, False, "RE", 2),), stem=4)
    image = jax.numpy.zeros((1, 8, 8, 3))
    variables = encoder.init(jax.random.key(1), image, train=False)
    encdec.weights.save(tmp_path / "weights", encoder, variables)
    other = encoder.clone(epsilon=0.1, padding="same")
    unet = encdec.UNet(strides=(2, 4), channels=(4,))
    model = encdec.EncoderDecoder(other, unet, encdec.Pixel(8))
    said = "--model.encoder.epsilon 0.001 --model.encoder.padding symmetric$"
    with pytest.raises(InputError, match=said):
        loop.given(tiny(model=model, start=tmp_path / "weights"))


def test_a_run_can_start_from_a_decoders_weights(tiny, finished, tmp_path):
    given = variables_of(tiny(), finished)["params"]["decoder"]
    encdec.weights.save(tmp_path / "decoder", tiny().model.decoder, {"params": given})
    second = tiny(start=tmp_path / "decoder")
    taken = loop.started(loop.first_state(second), second).variables()
    assert bits(taken["params"]["decoder"]) == bits(given)


def test_weights_of_no_use_are_said(tiny, finished, capsys):
    plain = tiny(model=tiny().model.clone(encoder=encdec.Plain((4, 8))), start=finished)
    loop.started(loop.first_state(plain), plain)
    assert "of no use: encoder/conv1_s1/norm/batch" in capsys.readouterr().out


def test_deep_supervision_is_two_fields(tiny, tmp_path):
    unet = encdec.UNet(strides=(1, 2), channels=(4,), levels="every")
    model = encdec.EncoderDecoder(encdec.Plain((4, 8)), unet, encdec.Pixel(8, deep=True))
    scores = run(tiny(model=model, steps=1), tmp_path)
    first = history(tmp_path)[0]
    parts = first["cross_entropy"] + first["aux_s2/cross_entropy"]
    assert first["loss"] == pytest.approx(parts) and first["aux_s2/cross_entropy"] > 0
    assert 0 <= scores["mean_iou"] <= 1


def test_a_start_must_fit(tiny, finished, tmp_path):
    other = encdec.EncoderDecoder(
        encdec.Plain((5, 8), norm="batch"),
        encdec.UNet(strides=(1, 2), channels=(4,)),
        encdec.Pixel(8),
    )
    with pytest.raises(InputError, match=r"of shape .* wanted .*--start"):
        run(tiny(model=other, start=finished), tmp_path / "run")
    with pytest.raises(InputError, match="wanted a run folder"):
        run(tiny(start=tmp_path / "none"), tmp_path / "other")
    assert not (tmp_path / "other").exists()
