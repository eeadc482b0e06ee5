"""run(experiment, folder): restore, step, report, evaluate, save."""

import math
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from encdec import page, parallel
from encdec.checkpoint import Checkpoints
from encdec.data.pipeline import opened, train_batches
from encdec.errors import InputError
from encdec.evaluate import evaluate, evaluator, samples
from encdec.experiment import Experiment, load
from encdec.model import EncoderDecoder
from encdec.report import Report, history
from encdec.train.folder import facts, open_folder
from encdec.train.state import State, count
from encdec.train.step import create_state, train_step
from encdec.weights.artefact import is_artefact, restore

MEANINGS = ("mean", "std", "epsilon", "padding", "activation")
"""Fields of encoders that change what the same weights compute."""


def run(experiment: Experiment, folder: Path) -> dict[str, float]:
    """Trains from the newest checkpoint of the folder, if there is one; returns the final scores.

    The folder then holds experiment.json, the script, environment.json, metrics.jsonl,
    checkpoints/ and report.html. Interrupted, the same call goes on where it stopped, with the
    numbers that an unbroken run would have had.

    Raises:
      InputError: the folder holds a run of another experiment; or the loss is no longer finite.
    """
    parallel.check_batch(experiment.batch)
    check_classes(experiment)
    for split in dict.fromkeys(("train", experiment.data.split)):
        opened(experiment.data, split)  # a missing one shows now, not after training
    shapes = shapes_of_state(experiment)  # traces the net: one that cannot be takes no folder
    if experiment.start is not None:
        shared(shapes, experiment)
    if jax.process_index() == 0:
        open_folder(experiment, folder)
    report = Report(
        folder, steps=experiment.steps, batch=experiment.batch, tensorboard=experiment.tensorboard
    )
    checkpoints = Checkpoints(folder / "checkpoints", keep=experiment.keep)
    with closing(report), closing(checkpoints):  # interrupted, too, what is being saved is finished
        state = checkpoints.restore(shapes) or first_state(experiment)
        start = int(state.step)
        if experiment.start is not None and not start:
            state = started(state, experiment)
        report.resume(start)
        print(
            f"{folder}: {count(state.params):,} parameters, {jax.device_count()} device(s)", end=""
        )
        print(f", from step {start}" if start else "", flush=True)

        step, scorer = trainer(experiment), evaluator(experiment)
        key = parallel.replicate(jax.random.key(experiment.seed))
        rate = experiment.optimizer.rate_at(experiment.steps)
        batches = train_batches(
            experiment.data,
            batch=experiment.batch,
            seed=experiment.seed,
            start=start,
            shard=(jax.process_index(), jax.process_count()),
        )
        scores: dict[str, float] = {}
        for number in range(start + 1, experiment.steps + 1):
            began = time.perf_counter()
            batch = next(batches)
            if state.step.is_ready():  # the devices have nothing to do
                report.waited += time.perf_counter() - began
            state, losses = step(state, batch, key)
            last = number == experiment.steps
            due = last or bool(
                experiment.evaluate_every and number % experiment.evaluate_every == 0
            )
            saved = due or number % experiment.save_every == 0
            said = last or number == start + 1 or number % experiment.log_every == 0
            if said or saved:
                check_finite(number, float(losses["loss"]), state.params if saved else {}, folder)
            if said:
                losses = {name: float(loss) for name, loss in losses.items()}
                if number == start + 1:
                    losses["memory_mib"] = round(step.memory(state, batch, key) / 2**20, 1)
                update = (number - 1) // experiment.optimizer.accumulate
                report.train(number, losses, float(rate(update)))
            if due:
                began = time.perf_counter()
                scores = evaluate(experiment, state.variables(), scorer)
                seconds = time.perf_counter() - began
                report.scores(number, experiment.data.split, scores, seconds)
            if saved:
                checkpoints.save(state, scores if due else None)
        if not scores:  # the run was complete before
            scores = evaluate(experiment, state.variables(), scorer)
    if jax.process_index() == 0:
        write_page(experiment, folder, state.variables(), scores)
    return scores


def check_finite(step: int, loss: float, params: Any, folder: Path) -> None:
    """Raises InputError where the loss or a parameter is not finite: nothing of it is saved."""
    wrong = "" if math.isfinite(loss) else f"the loss is {loss}"
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(params))):
        wrong = wrong or "a parameter is not finite"
    if wrong:
        raise InputError(
            f"{wrong} at step {step}: wanted finite numbers; lower --optimizer.rate (in another "
            f"--workdir), or go on from {folder} after mending the data"
        )


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

    Raises:
      InputError: it is neither, or its encoder computes something else than ours from the same
        numbers.
    """
    folder, ours = experiment.start, experiment.model
    if not is_artefact(folder):
        run = load(folder)
        model, variables = run.model, variables_of(run, folder)
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
    """What to evaluate a run with, from its newest checkpoint.

    Raises:
      InputError: it has none.
    """
    with closing(Checkpoints(folder / "checkpoints", read_only=True)) as checkpoints:
        state = checkpoints.restore(shapes_of_state(experiment))
    if state is None:
        raise InputError(f"wanted a checkpoint under {folder}; there is none yet: train first")
    return state.variables()


def check_classes(experiment: Experiment) -> None:
    """Raises InputError unless data, model and task speak of the same classes."""
    names, head, task = experiment.data.classes, experiment.model.head, experiment.task
    if not head.classes == task.classes == len(names) and task.mode == "multiclass":
        raise InputError(
            f"the data has {len(names)} classes ({', '.join(names[:4])}, …); got "
            f"--model.head.classes {head.classes} and --task.classes {task.classes}: "
            "make them equal"
        )


def write_page(
    experiment: Experiment, folder: Path, variables: Any, scores: dict[str, float]
) -> None:
    """report.html of the run."""
    names = experiment.data.classes
    shown = samples(experiment, variables, 6)
    page.write_run(
        folder,
        title=folder.name,
        history=history(folder),
        scores={name: value for name, value in scores.items() if not name.startswith("iou/")},
        per_class={name: scores[f"iou/{i}"] for i, name in enumerate(names)},
        samples=[
            {"image": image, "label": label, "predictions": {"predicted": predicted}}
            for image, label, predicted in shown
        ],
        classes=names,
        facts=facts(folder),
    )
