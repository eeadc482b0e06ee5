"""U-Net on the slices of ISBI 2012: batches of one tile, elastic deformation, mirrored borders.

python experiments/isbi_unet.py --data.root DIR                       # slices 0-19, scored on 20-23
python experiments/isbi_unet.py --data.root DIR --augment.elastic 0   # no elastic deformation

The paper's optimiser is SGD of momentum 0.99 (§3), without a rate or a number of steps; in as few
as these Adam gets further (README). As in the paper, and at its width:
experiments/isbi_unet_paper.py.
"""

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.biomedical import ISBI
from encdec.experiment import Experiment
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    paper = papers.unet(classes=2, width=16)
    return Experiment(
        model=paper.clone(encoder=paper.encoder.clone(mean=(0.5,), std=(0.25,))),
        data=ISBI(),
        augment=Augment(size=(444, 444), rotate=180.0, colour=0.2, elastic=10.0, border="mirror"),
        task=Segment(2, also=("membranes",)),
        optimizer=Optimizer(rate=1e-3),
        steps=1500,
        batch=1,
        save_every=250,
    )


if __name__ == "__main__":
    cli.main(experiment())
