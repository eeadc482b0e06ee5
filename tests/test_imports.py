import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import encdec

ALONE = """
import sys, time
start = time.perf_counter()
import jax, flax
between = time.perf_counter()
from jax._src import xla_bridge
before = dict(jax.config.values)
import encdec
print(f"jax, flax {between - start:.2f} s; encdec {time.perf_counter() - between:.2f} s more")
assert not xla_bridge._backends, "a device was started"
assert not {"tensorflow", "torch", "cv2"} & set(sys.modules), "a foreign framework was imported"
assert jax.config.values == before, "a flag was set"
"""


def test_importing_encdec_starts_no_device_and_no_foreign_framework():
    root = str(Path(encdec.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)


def test_everything_that_is_promised_is_there():
    assert [name for name in encdec.__all__ if not hasattr(encdec, name)] == []
    assert len(set(encdec.__all__)) == len(encdec.__all__)


@pytest.mark.parametrize(
    "path", sorted(Path(encdec.__file__).parent.rglob("*.py")), ids=lambda p: p.name
)
def test_no_file_of_the_package_imports_a_foreign_framework(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    assert not names & {"tensorflow", "torch", "cv2", "clu"}
