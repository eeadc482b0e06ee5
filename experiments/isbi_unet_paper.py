"""U-Net on ISBI 2012 as published: tiles of 572x572 pixels, one a step, momentum 0.99.

    python experiments/isbi_unet_paper.py --data.root DIR

Figure 1's network at its full width (31,030,658 parameters), from random weights; elastic
deformation of 10 pixels at 3x3 points, any turn, grey values varied; the weight map of equation 2
(whether the paper's EM run had its border term is not said: `data.border:none` leaves it out).

Published, on the challenge's hidden slices and as the mean of seven rotated versions (Table 1):
warping error 0.000353, Rand error 0.0382, pixel error 0.0611. Here are scored slices of the
training stack (`--data.validate`), as the mean of eight turned versions, by the challenge's later
V_rand and V_info, and by both errors.

The paper gives no rate, schedule or number of steps, and no amounts but the deformation's: these
are ours. Started for a few steps only; not run to its end here. A run of some minutes:
experiments/isbi_unet.py.
"""

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.biomedical import ISBI
from encdec.data.border import Border
from encdec.experiment import Experiment
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=papers.unet(),
        data=ISBI(border=Border()),
        augment=Augment(
            (572, 572), flip=0.0, rotate=180.0, colour=0.2, elastic=10.0, border="mirror"
        ),
        task=Segment(2, also=("membranes",)),
        optimizer=Optimizer("sgd", rate=2e-3, momentum=0.99, decay=0.0, clip=1.0),
        steps=30_000,
        batch=1,
        save_every=1000,
        tta=("flip", "rotate90"),
    )


if __name__ == "__main__":
    cli.main(experiment())
