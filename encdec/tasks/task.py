"""What every task says of a model's outputs: what they cost, what is found in them, its scores."""

from typing import Any, ClassVar

from jaxtyping import PRNGKeyArray

from encdec.arrays import Batch
from encdec.losses import SumCount


class Task:
    """Segment, Detect (and Propose), TwoStage, Masks."""

    keys = ("image", "label")
    """What it needs of an example."""

    samples: ClassVar[bool] = False
    """Whether the model's head draws by the truth: the batch then goes to it as `targets`."""

    best_by: ClassVar[str] = "mean_iou"
    """The score by which one checkpoint is better than another."""

    @property
    def image_by(self) -> str:
        """The score by which one image is better than another."""
        return self.best_by

    by_class: ClassVar[str] = "iou"
    """The score that there is of each class: "iou/3"."""

    @property
    def logits(self) -> int:
        """Classes that the head is to have, the background's included."""
        return self.classes

    def fits(self, classes: int) -> bool:
        """Whether a data set of so many classes is one for this task."""
        return classes == self.classes

    def names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Those of its own classes, where the data set's are these."""
        return classes

    def loss(self, outputs: Any, batch: Batch, key: PRNGKeyArray) -> dict[str, SumCount]:
        """(sum, count) by name; what is drawn follows from the key and batch["index"]."""
        raise NotImplementedError

    def measure(self, outputs: Any, batch: Batch) -> Any:
        """What the scores are made of, of all devices' images."""
        raise NotImplementedError

    def each(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """{"images": what `score_of` reads of each image}, where `measure` has the sums alone."""
        return {}

    def score_of(self, image: Any) -> float:
        """`image_by` of one image, in [0, 1]; NaN where there is nothing to be scored.

        image: its row of `each`, or its record.
        """
        return self.scores([image])[self.image_by]

    def scores(self, parts: Any) -> dict[str, float]:
        """Scores by name, of the sums or records of all images."""
        raise NotImplementedError

    def decode(self, outputs: Any, size: Any) -> Any:
        """What is found in each image of (rows, columns), (b, 2), before it was padded."""
        raise NotImplementedError
