"""docs/results.md, from the records of runs in docs/records/experiments: python docs/results.py"""

from pathlib import Path

from encdec.records import read
from encdec.table import Row, table
from encdec.visualize_cost import write_cost

ROOT = Path(__file__).resolve().parents[1]
PAGE, RECORDS = ROOT / "docs" / "results.md", ROOT / "docs" / "records" / "experiments"
HEAD = """# Results

Written by `python docs/results.py` from the records in `docs/records/experiments`, which the
scripts of `experiments/` write with `--record`: no number here was typed. A ± after a score is the
standard deviation over the seeds. A *worth* is what a change adds to the score of the form that it
changes, paired by seed, ± half of the 95 % interval of Student's t: where it is larger than its ±,
the change did something, but for chance: one of twenty such intervals misleads. Behind an ordering
of a paper stands the difference of the means and, ±, the standard deviation of the difference of
two runs; it holds where it is larger. Bold: the best of a column of scores or speeds. Figures of
the papers are on their own data: PASCAL VOC, COCO, Cityscapes.
"""


def page() -> str:
    """The whole page: for each record its tables, what holds, and what ran where."""
    return "\n".join([HEAD, *(section(path) for path in sorted(RECORDS.glob("*.json")))])


def section(path: Path) -> str:
    """One record's part."""
    record = read(path)
    parts = [f"## {record['title']}", f"```sh\npython experiments/{record['command']}\n```"]
    for title, rows in tables(record):
        parts += [f"### {title[:1].upper()}{title[1:]}", table(rows)]
    if drawn(record):
        parts.append(f"![Costs and scores](records/experiments/{path.stem}.svg)")
    if record["findings"]:
        parts.append("\n".join(f"- {finding}" for finding in record["findings"]))
    if record["runs"]:
        parts.append(about(record["runs"]))
    return "\n\n".join(parts) + "\n"


def tables(record: dict) -> list[tuple[str, list[Row]]]:
    """(title, rows): JSON has no tuples, and (mean, spread) is one."""
    return [
        (
            made["title"],
            [
                {column: tuple(x) if isinstance(x, list) else x for column, x in row.items()}
                for row in made["rows"]
            ],
        )
        for made in record["tables"]
    ]


def drawn(record: dict) -> list[str]:
    """The scores of the record's figure, what each change is worth; none where it has no such."""
    return [column[7:] for column in record["tables"][0]["rows"][0] if column[:7] == "worth: "]


def about(runs: list[dict]) -> str:
    """What the runs ran on."""

    def known(key: str) -> str:
        found = sorted({run[key] for run in runs if key in run})
        few = len(found) < 6 or isinstance(found[0], str)
        return ", ".join(map(str, found)) if few else f"{found[0]} to {found[-1]}"

    seconds = [run["seconds"] for run in runs if run.get("seconds") is not None]
    commits = ", ".join(sorted({run.get("commit", "unknown")[:7] for run in runs}))
    seeds = "seeds" if len({run["seed"] for run in runs}) > 1 else "seed"
    return (
        f"{len(runs)} {'runs' if len(runs) > 1 else 'run'}, {seeds} {known('seed')}; "
        f"{known('steps')} steps of {known('batch')} images; "
        f"{sum(seconds) / 60:.0f} minutes in all, {known('devices')}, {known('machine')}; "
        f"Python {known('python')}, jax {known('jax')}; commit {commits}."
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    for path in sorted(RECORDS.glob("*.json")):
        record = read(path)
        if scores := drawn(record):
            write_cost(path.with_suffix(".svg"), tables(record), "GFLOPs", scores)
