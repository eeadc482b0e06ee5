"""encdec predict: images -> label maps or objects, and overlays; of any number, on any hosts."""

import errno
import hashlib
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from encdec import hosts, parallel
from encdec.checkpoint import digests
from encdec.data.fit import magnification
from encdec.data.listing import MADE_BY, Listed, Page, listed, read_ahead
from encdec.errors import InputError, visible
from encdec.experiment import Experiment, load, to_json
from encdec.find import find
from encdec.find import programs as programs_of_find
from encdec.flags import parse
from encdec.ledger import Ledger, stamp
from encdec.outputs import Form, Found, Output, check_targets, opened, targets
from encdec.predict import check_options, class_ids, predict, predict_outputs
from encdec.predict import programs as programs_of_predict
from encdec.progress import Bar
from encdec.tasks.masks import Masks
from encdec.tasks.segment import Segment
from encdec.tiles import plan
from encdec.train.folder import check_shared, locked
from encdec.train.loop import variables_of
from encdec.train.stop import Stop, Stopped
from encdec.turns import Turn


@dataclass(frozen=True)
class Predict:
    """Write the label map, or the objects, of each image, and an overlay.

    A list that was broken off goes on when the same command is given again; several hosts
    ($ENCDEC_HOSTS) share it. An image that cannot be read is named at the end, the others are done.

    Attributes:
      images: files, folders (with all images below them), or globs in quotes: 'scans/**/*.tif'.
        The results of a TIFF stack are stacks.
      run: folder of a run, or of weights that `encdec export-weights` made of one.
      out: folder for the results: <image>_mask.png and so on, in the sub-folders that the images
        have below a folder that was given. predictions.json there says what made them.
      write: mask (class ids, a PNG with a palette), overlay, probabilities (.npz, float16),
        polygons (GeoJSON, in pixels), voc (XML of boxes), coco (detections.json of all images, and
        masks.json where the run finds masks). By default mask and overlay; of a detector coco and
        overlay.
      tiff: masks as TIFF; of more than 255 classes they always are.
      threshold: least score of an object that is drawn, outlined or in voc's files; coco's have all
        that the task finds.
      memory: GiB that an image's maps may take; a larger one is read in parts, to the same labels.
      tile: side in pixels of the parts instead; a padded net's are blended, which is approximate.
      tta: turns of the image whose scores are averaged, with all that they make together; by
        default those by which the run is scored; --tta alone: none.
      scales: of the image, whose scores are averaged too.
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    run: Annotated[Path, tyro.conf.arg(aliases=["--model"])]
    out: Path = Path("predictions")
    write: tuple[Output, ...] = ()
    tiff: bool = False
    threshold: float = 0.5
    memory: float = 2.0
    tile: int = 0
    tta: tuple[Turn, ...] | None = None
    scales: tuple[float, ...] = (1.0,)


def predict_command(args: list[str]) -> None:
    """predict: write masks or objects, overlays, polygons … of images, folders, stacks."""
    asked = parse(Predict, args, prog="encdec predict")
    with hosts.together():
        experiment = load(asked.run)
        if not asked.images:
            raise InputError("predict wants images: encdec predict IMAGE … --run RUN; got none")
        form = form_of(experiment, asked)
        asked = replace(
            asked, write=form.kinds, tta=experiment.tta if asked.tta is None else asked.tta
        )
        files = listed(asked.images, asked.out)
        check_targets(files, asked.out, form)
    variables = parallel.on_this_host(variables_of(experiment, asked.run))
    ledger = Ledger(asked.out, made_by(experiment, variables, asked))
    check_alike(ledger.made_by, files)
    with hosts.together():
        if hosts.is_first():
            ledger.check(path for file in files for path in targets(asked.out, file, form))
            _make(asked.out)
    with locked(asked.out, "--out"), Stop(alone=True) as stop, closing(ledger):
        with hosts.together():
            todo = ledger.begin(files) if hosts.is_first() else []
        check_shared(asked.out, MADE_BY, "--out")
        todo = json.loads(hosts.exchange(json.dumps(todo))[0])
        mine = [files[todo[i]] for i in hosts.share(len(todo))]
        before = programs()
        wrong = run_over(mine, Predictor(experiment, variables, asked, form), ledger, stop)
        ledger.close()
        wrong = [line for told in hosts.exchange(json.dumps(wrong)) for line in json.loads(told)]
        with hosts.together():
            for path in ledger.join(files) if hosts.is_first() else ():
                print(visible(str(path)))
    if hosts.is_first():
        said = f"images: {len(files)}; programs compiled: {programs() - before}"
        had = len(files) - len(todo)
        print(said + (f"; done before: {had}" if had else ""), file=sys.stderr)
    if len(wrong) > 1:
        print("\n".join(map(visible, wrong)), file=sys.stderr)
        raise InputError(
            f"{len(wrong)} of {len(files)} images could not be predicted, see the lines above; the "
            "others are done: mend them and give the same command"
        )
    if wrong:
        raise InputError(wrong[0])


def form_of(experiment: Experiment, asked: Predict) -> Form:
    """What is written, and how.

    Raises:
      InputError: the run does not give what is asked for.
    """
    task, data = experiment.task, experiment.data
    labels = isinstance(task, Segment)
    masks = labels or isinstance(task, Masks) or getattr(task, "masks", False)
    usual = ("mask", "overlay") if labels else ("coco", "overlay")
    kinds = tuple(dict.fromkeys(asked.write or usual))
    can = ("mask", "overlay", "probabilities") if labels else ("coco", "overlay", "voc")
    can += ("polygons",) * masks
    if labels and task.mode == "multilabel":
        can = ("probabilities",)  # a pixel has not one class
    if lacks := [kind for kind in kinds if kind not in can]:
        raise InputError(
            f"this run gives {', '.join(can)}; wanted was {', '.join(lacks)}: say --write "
            f"{' '.join(can)}, or some of them"
        )
    if not labels and (asked.tile or asked.tta or asked.scales != (1.0,) or asked.tiff):
        raise InputError(
            "objects are found in the whole image, once, and are no mask; got --tile, --tta, "
            "--scales or --tiff: leave them out"
        )
    check_options(data.shrink, asked.memory, asked.scales)
    if labels:
        options = {"shrink": data.shrink, "memory": asked.memory, "tile": asked.tile}
        plan(experiment.model, (1, 1, 3), **options)  # what no image fits ends here
    classes = task.names(data.classes)
    if labels and len(classes) > 255 and "overlay" in kinds:
        raise InputError(f"overlays have 255 classes at most; got {len(classes)}: --write mask")
    ids = tuple(range(1, len(classes) + 1))
    if classes == data.classes:
        ids = getattr(data, "category_ids", ids)
    return Form(kinds, classes, ids, asked.tiff, asked.threshold)


def made_by(experiment: Experiment, variables: Any, asked: Predict) -> dict[str, Any]:
    """Run and settings, of which all in a folder of predictions is: the memory is no matter."""
    what = [to_json(part) for part in (experiment.model, experiment.task)]
    data = [experiment.data.shrink, experiment.task.names(experiment.data.classes)]
    data += [experiment.data.side] * (experiment.data.side is not None)
    text = json.dumps([what, data, digests(variables)], sort_keys=True)
    settings = asdict(asked)
    for name in ("images", "run", "out", "memory"):
        del settings[name]
    return {"run": hashlib.sha256(text.encode()).hexdigest(), "settings": settings}


def check_alike(made_by: dict[str, Any], files: tuple[Listed, ...]) -> None:
    """Raises InputError unless all hosts have one run, one command, and the same list."""
    names = hashlib.sha256(json.dumps([file.name for file in files]).encode()).hexdigest()
    mine = made_by | {"images": names}
    first = json.loads(hosts.exchange(json.dumps(mine))[0])
    with hosts.together():
        if wrong := [name for name in mine if mine[name] != first[name]]:
            raise InputError(
                f"the same command and files on every host are wanted; {', '.join(wrong)} differ "
                "from the first host's: copy them again"
            )


@dataclass(frozen=True)
class Predictor:
    """What is found on a page, by a run's model."""

    experiment: Experiment
    variables: Any
    asked: Predict
    form: Form

    def __call__(self, image: np.ndarray) -> Found:
        """Raises InputError where the memory is too little for it."""
        model, task = self.experiment.model, self.experiment.task
        given, data = (model, self.variables, image), self.experiment.data
        if not isinstance(task, Segment):
            found = find(*given, task=task, shrink=data.shrink, side=data.side)
            return Found(image, objects=found)
        asked, found = self.asked, {}
        options = {"shrink": data.shrink, "memory": asked.memory, "tile": asked.tile}
        factor = magnification(image.shape[:2], data.side)
        options |= {"tta": asked.tta, "scales": tuple(scale * factor for scale in asked.scales)}
        if "probabilities" in self.form.kinds:
            logits = predict_outputs(*given, **options)["logits"]
            found["probabilities"] = np.asarray(task.probabilities(logits))
            labels = class_ids(logits)[..., 0]
        else:
            labels = predict(*given, **options)
        kind = np.uint8 if task.logits <= 256 else np.uint16
        return Found(image, labels=labels.astype(kind), **found)


def run_over(files: list[Listed], predictor: Predictor, ledger: Ledger, stop: Stop) -> list[str]:
    """Predicts the files and notes each; returns a line for each that could not be.

    Raises:
      Stopped: a signal came; the image that it came in is done.
      InputError: results cannot be written.
    """
    wrong, done = [], 0
    pages = groupby(read_ahead(files), key=lambda page: page.file)
    with Bar(None, "predicting", hosts.is_first(), total=len(files)) as bar:
        for file, own in pages:
            try:
                write(file, own, predictor, ledger)
                done += 1
            except InputError as error:
                line = str(error)
                wrong.append(line if str(file.path) in line else f"{file.path}: {line}")
            except BrokenPipeError:  # of what is printed
                raise
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise InputError(
                        f"results of {file.path} cannot be written below {ledger.out}: {error}; "
                        "make room, and give the same command: it goes on"
                    ) from error
                wrong.append(f"{file.path}: its name is too long for its results'; shorten it")
            bar.update()
            if stop.number:
                _end(stop.number, done, len(files))
    return wrong


def write(file: Listed, pages: Iterator[Page], predictor: Predictor, ledger: Ledger) -> None:
    """Predicts the pages of a file, writes what was found and notes that it is done."""
    before, first = stamp(file), next(pages)
    if first.wrong is not None:
        raise first.wrong
    with opened(ledger.out, file, predictor.form, first.pages) as files:
        files.add(predictor(first.image), 0)
        for page in pages:
            if page.wrong is not None:
                raise page.wrong
            files.add(predictor(page.image), page.number)
    more = {"pages": first.pages} if first.pages > 1 else {}
    more |= {"coco": files.coco} if files.coco else {}
    ledger.note(jax.process_index(), file, before, files.targets, more)
    for path in files.targets:
        Bar.write(visible(str(path)), file=sys.stdout)


def _end(number: int, done: int, files: int) -> None:
    """Ends this host: it has written what it had, and does not wait for others."""
    name = signal.Signals(number).name
    stopped = Stopped(
        number, f"{name}: {done} of {files} images are done; the same command goes on"
    )
    if jax.process_count() > 1:
        print(stopped, file=sys.stderr)
        hosts.leave(stopped.code)
    raise stopped


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out wants a folder that can be made; {folder}: {error.strerror}"
        ) from error


def programs() -> int:
    """How many programs predictions have compiled in this process."""
    return programs_of_predict() + programs_of_find()
