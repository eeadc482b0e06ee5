"""Several hosts, as processes of this machine: python -m tests.hosted OUT JOB …

A job is KIND/DRIVER or KIND/DRIVER/DEVICES: the first host writes what five steps and an evaluation
gave; or "agree": each writes what it was told of the others. Or: python -m tests.hosted predict …
"""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.flags import FAST

ROOT = Path(__file__).parent.parent


def start(
    command: Sequence[object], folder: Path, *, hosts: int = 2, devices: int = 4, **more: str
) -> list[subprocess.Popen]:
    """`python -m COMMAND …` on that many hosts of that many CPU devices each.

    What they say goes to folder/said0, folder/said1, …
    """
    port = free_port()
    flags = f"--xla_force_host_platform_device_count={devices} {FAST}"
    folder.mkdir(parents=True, exist_ok=True)
    processes = []
    for index in range(hosts):
        told = {"ENCDEC_HOSTS": f"127.0.0.1:{port},{hosts},{index}"} if hosts > 1 else {}
        with (folder / f"said{index}").open("w") as said:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", *map(str, command)],
                    cwd=ROOT,
                    env=os.environ
                    | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
                    | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
                    | told
                    | more,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
    return processes


def free_port() -> int:
    """Of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def end(processes: list[subprocess.Popen], seconds: float) -> list[int]:
    """Exit codes; what has not ended by then is killed, and raises TimeoutExpired."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()


def said(folder: Path, index: int) -> str:
    """What that host wrote on its console."""
    path = folder / f"said{index}"
    return path.read_text() if path.exists() else ""


def measure(kind: str, driver: str, devices: int | None) -> dict:
    """State and losses after five steps from a drawn start, and the evaluation's sums or scores.

    Args:
      devices: use so many; all of them by default.
    """
    from dataclasses import replace
    from itertools import islice

    import jax
    import numpy as np
    from jax.sharding import Mesh

    import encdec
    from encdec import evaluate, parallel
    from encdec.data.pipeline import train_batches
    from encdec.train.loop import first_state, trainer
    from encdec.train.optimizer import Optimizer
    from tests.stormed import experiment

    optimizer = Optimizer("sgd", rate=0.1, ema=0.9)  # Adam makes all of what is nearly nothing
    made = replace(experiment(kind), batch=8, driver=driver, optimizer=optimizer)
    every = parallel.mesh
    if devices is not None:
        parallel.mesh = lambda here=False: Mesh(np.array(jax.devices()[:devices]), (parallel.AXIS,))
    batches = train_batches(
        made.data,
        batch=made.batch,
        seed=made.seed,
        shard=(jax.process_index(), jax.process_count()),
        keys=made.task.keys,
    )
    step, state = trainer(made), first_state(made)
    key = parallel.replicate(jax.random.key(made.seed))
    for batch in islice(batches, 5):
        state, losses = step(state, batch, key)
    assert step.programs() == 1
    found = {"state": state, "losses": losses}
    sums: list = []
    whole = encdec.Segment.scores
    encdec.Segment.scores = lambda task, own: sums.append(own) or whole(task, own)
    found["scores"] = evaluate.evaluate(made, state.variables(), evaluate.evaluator(made))
    encdec.Segment.scores, parallel.mesh = whole, every
    return found | {"sums": sums}


def agree(out: Path) -> None:
    """OUT/HOST.json: what each host was told where all must agree, by what was tried."""
    import json
    from dataclasses import replace

    import jax
    import numpy as np

    from encdec import hosts
    from encdec.errors import CheckpointError, InputError
    from encdec.train import folder
    from encdec.train.folder import check_same, check_shared, locked
    from tests.stormed import experiment

    host, plain = jax.process_index(), experiment("plain")
    trees = hosts.exchange({"a": np.full(host, 2**40), "b": {"c": np.pi + host}})
    told = {"exchanged": [[tree["a"].tolist(), tree["b"]["c"]] for tree in trees]}
    told["shares"] = [list(hosts.share(count)) for count in (0, 1, 5)]
    folder.PATIENCE = 0.5

    def tried(name: str, action, kind=InputError) -> None:
        try:
            action()
            told[name] = ""
        except kind as error:
            told[name] = str(error)

    def failing() -> None:
        with hosts.together():
            if host == 1:
                raise CheckpointError("nothing good")

    def lock() -> None:
        with locked(out):
            pass

    tried("together", failing, CheckpointError)
    tried("same", lambda: check_same(plain, {"train": 4}))
    tried("seed", lambda: check_same(replace(plain, seed=host), {"train": 4}))
    data = replace(plain.data, root=Path(f"/data{host}"))
    tried("root", lambda: check_same(replace(plain, data=data), {"train": 4}))
    tried("fewer", lambda: check_same(plain, {"train": 4 - host}))
    own, other = out / "own", out / f"other{host}"
    for path in (own, other):
        path.mkdir(parents=True, exist_ok=True)
    if host == 0:
        (own / "environment.json").write_text("now")
        (other / "environment.json").write_text("now")
    else:
        (other / "environment.json").write_text("before")
    tried("shared", lambda: check_shared(own))
    tried("apart", lambda: check_shared(other))
    tried("locked", lock)
    (out / f"{host}.json").write_text(json.dumps(told))


def write(out: Path, jobs: Sequence[str]) -> None:
    """OUT/JOB.npz of each job, "KIND/DRIVER" or "KIND/DRIVER/DEVICES"; the first host writes."""
    import jax
    import numpy as np

    for job in jobs:
        if job == "agree":
            agree(out)
            continue
        kind, driver, *devices = job.split("/")
        found = measure(kind, driver, int(devices[0]) if devices else None)
        arrays = {
            jax.tree_util.keystr(path): np.asarray(x)
            for path, x in jax.tree.leaves_with_path(found)
        }
        if jax.process_index() == 0:
            np.savez(out / f"{job.replace('/', '-')}.npz", **arrays)


if __name__ == "__main__":
    from encdec import cli

    if sys.argv[1] == "predict":
        cli.main()
    else:
        cli.guarded(partial(write, Path(sys.argv[1]), sys.argv[2:]))
