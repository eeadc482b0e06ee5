"""run(experiment, folder): restore, step, report, evaluate, save."""

import signal
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from encdec import hosts, parallel
from encdec.checkpoint import Checkpoints
from encdec.data.faults import Faults, listed_in
from encdec.data.pipeline import opened, train_batches
from encdec.errors import InputError
from encdec.evaluate import Seen, evaluate, evaluator
from encdec.experiment import Experiment, check_classes, load, to_json
from encdec.model import EncoderDecoder
from encdec.report import Report
from encdec.train.compiling import compiling
from encdec.train.folder import check_same, owned
from encdec.train.page import predicted, write_page
from encdec.train.state import State, count
from encdec.train.step import create_state, train_step
from encdec.train.stop import Cut, Stop, Stopped
from encdec.weights.artefact import is_artefact, restore

MEANINGS = ("mean", "std", "epsilon", "padding", "activation")
"""Fields of encoders that change what the same weights compute."""


def run(experiment: Experiment, folder: Path) -> dict[str, float]:
    """Trains from the newest checkpoint of the folder, if there is one; returns the final scores.

    The folder then holds experiment.json, the script, environment.json, metrics.jsonl,
    checkpoints/ and report.html. Interrupted, the same call goes on where it stopped, with the
    numbers that an unbroken run would have had.

    Raises:
      InputError: the folder holds weights, or a run of another experiment; or the loss is no
        longer finite.
    """
    with hosts.together():
        if is_artefact(folder):
            raise InputError(f"{folder} holds weights, not a run: give another --workdir")
        parallel.check_batch(experiment.batch)
        check_classes(experiment)
        splits = dict.fromkeys(("train", experiment.data.split))
        # A missing one shows now, not after training.
        examples = {split: len(opened(experiment.data, split)) for split in splits}
        shapes = shapes_of_state(experiment)  # traces the net: one that cannot be takes no folder
    check_same(experiment, examples)
    if experiment.start is not None:
        shared(shapes, experiment)
    # Nothing is opened that another process may be writing; interrupted, what is being saved is
    # finished.
    with (
        owned(experiment, folder),
        Stop() as stop,
        closing(report_of(experiment, folder)) as report,
        closing(checkpoints_of(experiment, folder)) as checkpoints,
    ):
        state = checkpoints.restore(shapes) or first_state(experiment)
        start = int(state.step)
        if experiment.start is not None and not start:
            state = started(state, experiment)
        report.resume(start)
        if hosts.is_first():
            said = f"{folder}: {count(state.params):,} parameters, {jax.device_count()} device(s)"
            print(said + (f", from step {start}" if start else ""), flush=True)

        faults = Faults(experiment.data, folder / listed_in(jax.process_index()))
        step, scorer = trainer(experiment), evaluator(experiment)
        key = parallel.replicate(jax.random.key(experiment.seed))
        rate = experiment.optimizer.rate_at(experiment.steps)
        batches = train_batches(
            experiment.data,
            batch=experiment.batch,
            seed=experiment.seed,
            start=start,
            shard=(jax.process_index(), jax.process_count()),
            keys=experiment.task.keys,
            faults=faults,
        )
        scores: dict[str, float] = {}
        seen = Seen()

        def score(number: int) -> None:
            began = time.perf_counter()
            with suppress(Cut), stop.cut_short():
                last = seen if number == experiment.steps else None
                scores.update(evaluate(experiment, state.variables(), scorer, faults, last))
                seconds = time.perf_counter() - began
                report.scores(number, experiment.data.split, scores, seconds)
                if report.draws and experiment.pictures:
                    drawn = predicted(experiment, state.variables(), scorer, faults)
                    report.pictures(number, drawn, time.perf_counter() - began - seconds)

        if is_due(experiment, start) and not report.has(start, experiment.data.split):
            score(start)  # a signal had cut it short
        for number in range(start + 1, experiment.steps + 1):
            began = time.perf_counter()
            batch = next(batches)
            if state.step.is_ready():  # the devices have nothing to do
                report.waited += time.perf_counter() - began
            with compiling("the step") if number == start + 1 else nullcontext():
                state, losses = step(state, batch, key)
            last, due = number == experiment.steps, is_due(experiment, number)
            ended = stop.number or checkpoints.preempted(number)
            saved = due or ended or number % experiment.save_every == 0
            said = last or number == start + 1 or number % experiment.log_every == 0
            skipped = check_finite(experiment, state, folder) if said or saved else 0
            if said:
                losses = {name: float(loss) for name, loss in losses.items()}
                losses |= {"skipped": skipped} if skipped else {}
                if number == start + 1:
                    losses["memory_mib"] = round(step.memory(state, batch, key) / 2**20, 1)
                update = (number - 1) // experiment.optimizer.accumulate
                report.train(number, losses, float(rate(update)))
            scores.clear()
            if due and not ended:
                score(number)
            if saved:
                checkpoints.save(state, scores or None)
            if ended or stop.number:
                checkpoints.save(state)
                name = signal.Signals(stop.number or signal.SIGTERM).name
                raise Stopped(
                    stop.number or signal.SIGTERM,
                    f"{name}: step {number} is saved; the same command goes on from it",
                )
        if not scores:  # the run was complete before
            scores = evaluate(experiment, state.variables(), scorer, faults, seen)
    if hosts.is_first():
        write_page(experiment, folder, state.variables(), scores, scorer, faults, seen)
    return scores


def report_of(experiment: Experiment, folder: Path) -> Report:
    """The lines of the run."""
    return Report(
        folder,
        steps=experiment.steps,
        batch=experiment.batch,
        tensorboard=experiment.tensorboard,
        wandb=to_json(experiment) if experiment.wandb else None,
    )


def checkpoints_of(experiment: Experiment, folder: Path) -> Checkpoints:
    """The checkpoints of the run."""
    best = experiment.task.best_by
    return Checkpoints(folder / "checkpoints", keep=experiment.keep, metric=best)


def is_due(experiment: Experiment, step: int) -> bool:
    """Whether the run is scored after that step."""
    every = experiment.evaluate_every
    return step == experiment.steps or bool(step and every and step % every == 0)


def check_finite(experiment: Experiment, state: State, folder: Path) -> int:
    """How many steps were not finite.

    Raises:
      InputError: the last ones in a row are as many as the run's patience.
    """
    in_a_row, skipped = (int(n) for n in state.bad)
    if in_a_row >= experiment.patience:
        raise InputError(
            f"{in_a_row} steps in a row up to {int(state.step)} gave no finite numbers, and "
            "changed nothing: lower --optimizer.rate (in another --workdir), or go on from "
            f"{folder} after mending the data"
        )
    return skipped


def trainer(experiment: Experiment) -> parallel.Compiled:
    """`train_step` of the experiment over all devices."""
    step = partial(
        train_step,
        model=experiment.model,
        task=experiment.task,
        augment=experiment.augment,
        optimizer=experiment.optimizer,
        steps=experiment.steps,
        remat=experiment.remat,
    )
    return {"jit": parallel.jit, "pmap": parallel.pmap}[experiment.driver](step)


def first_state(experiment: Experiment) -> State:
    """The state before the first step, whole on every device."""
    return parallel.replicate(_created(experiment))


def _created(experiment: Experiment) -> State:
    size, channels = experiment.augment.size, 3
    model, optimizer = experiment.model, experiment.optimizer
    return create_state(model, optimizer, (1, *size, channels), experiment.seed, experiment.steps)


def shapes_of_state(experiment: Experiment) -> State:
    """The state's shapes, types and places, to restore into: nothing is computed."""
    return parallel.replicated(jax.eval_shape(partial(_created, experiment)))


def given(experiment: Experiment) -> Any:
    """Variables of `experiment.start`: the newest checkpoint of a run, or a folder of weights.

    A run of this model's proposer gives the proposer; the rest starts where that run started.

    Raises:
      InputError: it is neither, or its encoder computes something else than ours from the same
        numbers.
    """
    folder, ours = experiment.start, experiment.model
    if not is_artefact(folder):
        run = load(folder)
        model, variables = run.model, variables_of(run, folder)
        if ours.proposer is not None and model == ours.proposer:
            first, alone = {}, ours.clone(proposer=None)
            if run.start is not None:
                first = given(replace(experiment, start=run.start, model=alone))
            return {
                kind: first.get(kind, {}) | {"proposer": tree} for kind, tree in variables.items()
            }
    else:
        model, variables = restore(folder)
        if not isinstance(model, EncoderDecoder):
            kinds = {type(getattr(ours, part)): part for part in ("decoder", "head")}
            part = kinds.get(type(model), "encoder")
            variables = {kind: {part: tree} for kind, tree in variables.items()}
            model = ours.clone(**{part: model})
    theirs = model.encoder
    both = (theirs, ours.encoder)
    fields = {name: tuple(getattr(x, name, None) for x in both) for name in MEANINGS}
    if odd := {name: pair for name, pair in fields.items() if pair[0] != pair[1]}:
        told = ", ".join(f"{name} {wanted}, not {has}" for name, (wanted, has) in odd.items())
        flags = (f"--model.encoder.{name} {_words(wanted)}" for name, (wanted, _) in odd.items())
        raise InputError(
            f"the weights of {folder} are of an encoder of {told}: say {' '.join(flags)}"
        )
    return variables


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def started(state: State, experiment: Experiment) -> State:
    """The state with the variables that `experiment.start` has too; see `shared`."""
    new, (old, idle) = flatten_dict(state.variables(), sep="/"), shared(state, experiment)
    said = f"{len(old)} of {len(new)} arrays from {experiment.start}"
    for word, paths in (("new", [path for path in new if path not in old]), ("of no use", idle)):
        if paths:
            shown = [path.split("/", 1)[1] for path in paths]
            said += f"; {word}: {', '.join(shown[:6])}{' …' * (len(shown) > 6)}"
    if hosts.is_first():
        print(said, flush=True)
    taken = unflatten_dict(new | old, sep="/")
    params = taken.pop("params")
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return parallel.replicate(state.replace(params=params, stats=taken, ema=ema))


def shared(state: State, experiment: Experiment) -> tuple[dict[str, Any], list[str]]:
    """What `experiment.start` has of the state's variables, by path; and paths that it alone has.

    Raises:
      InputError: it has none of them, or one of another shape.
    """
    folder = experiment.start
    old, new = flatten_dict(given(experiment), sep="/"), flatten_dict(state.variables(), sep="/")
    both = [path for path in new if path in old]
    if wrong := [path for path in both if old[path].shape != new[path].shape]:
        raise InputError(
            f"{folder} has {wrong[0]} of shape {old[wrong[0]].shape}; wanted "
            f"{new[wrong[0]].shape}: name a run of the same encoder and classes with --start"
        )
    if not both:
        raise InputError(f"{folder} has nothing that this model has; name another with --start")
    return {path: old[path] for path in both}, [path for path in old if path not in new]


def variables_of(experiment: Experiment, folder: Path) -> Any:
    """What to evaluate a run with, from its newest checkpoint; or what is in a folder of weights.

    Raises:
      InputError: it has none; the weights are of another model.
    """
    if is_artefact(folder):
        model, variables = restore(folder)
        if model != experiment.model:
            raise InputError(
                f"the weights in {folder} are of the model that they were saved with; leave out "
                "the flags that change it"
            )
        return variables
    with closing(Checkpoints(folder / "checkpoints", read_only=True)) as checkpoints:
        state = checkpoints.restore(shapes_of_state(experiment))
    if state is None:
        raise InputError(f"wanted a checkpoint under {folder}; there is none yet: train first")
    return state.variables()
