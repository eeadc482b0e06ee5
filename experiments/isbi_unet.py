"""U-Net on the slices of ISBI 2012, as in the paper: one tile a step, elastic deformation.

python experiments/isbi_unet.py --data.root DIR                       # slices 0-19, scored on 20-23
python experiments/isbi_unet.py --data.root DIR --augment.elastic 0   # without elastic deformation
python experiments/isbi_unet.py --data.root DIR --model.encoder.channels 64 128 256 512 1024 \
    --model.decoder.channels 512 256 128 64                           # at the paper's width

The paper gives neither rate nor number of steps; both are ours, and so is the width, a quarter.
"""

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.biomedical import ISBI
from encdec.experiment import Experiment
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer


def experiment() -> Experiment:
    return Experiment(
        model=papers.unet(classes=2, width=16),
        data=ISBI(),
        augment=Augment(size=(444, 444), rotate=180.0, colour=0.2, elastic=10.0, border="mirror"),
        task=Segment(2, also=("membranes",)),
        optimizer=Optimizer("sgd", rate=2e-3, momentum=0.99, decay=0.0, clip=1.0),
        steps=1500,
        batch=1,
        save_every=250,
    )


if __name__ == "__main__":
    cli.main(experiment())
