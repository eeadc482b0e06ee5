"""How far a long loop over images is: a bar on stderr, on a terminal alone."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """tqdm's bar; a log takes none, nor do hosts where `shown` is false.

    Args:
      iterable: what is gone through; None where `update` is called.
      title: what stands before the bar.
      more: tqdm's own arguments, `total` and `leave` for two.
    """

    monitor_interval = 0  # else a thread of tqdm's stays until the process ends

    def __init__(
        self, iterable: Iterable | None, title: str, shown: bool = True, **more: Any
    ) -> None:
        disable = None if shown else True
        super().__init__(iterable, title, unit="image", file=sys.stderr, disable=disable, **more)
