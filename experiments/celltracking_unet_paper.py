"""U-Net on the ISBI cell tracking challenge of 2015 as published: PhC-U373 and DIC-HeLa.

    python experiments/celltracking_unet_paper.py phc_u373 --data.root PhC-C2DH-U373
    python experiments/celltracking_unet_paper.py dic_hela --data.root DIC-C2DH-HeLa

The network that the authors released for it (31,100,354 parameters), from random weights: tiles of
572x572 pixels, one a step, momentum 0.99; elastic deformation of 10 pixels at 3x3 points, any turn,
grey values varied; touching cells cut apart, and the weight map of equation 2.

Published, on the challenge's hidden sequences (Table 2): IOU 0.9203 of PhC-U373 and 0.7756 of
DIC-HeLa. Here it is trained on sequence 01 and scored on 02, as `seg`, of objects that are split by
a watershed; the paper trained on the drawn frames of both (35 and 20).

The paper gives no rate, schedule or number of steps, and no amounts but the deformation's: these
are ours. Started for a few steps only; not run to its end here.
"""

from encdec import cli, papers
from encdec.data.augment import Augment
from encdec.data.border import Border
from encdec.data.tracking import CellTracking
from encdec.experiment import Experiment
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer

U373 = CellTracking(border=Border())
HELA = CellTracking(name="DIC-C2DH-HeLa", canvas=(512, 512), border=Border())


def experiment(data: CellTracking = U373) -> Experiment:
    return Experiment(
        model=papers.unet_released(),
        data=data,
        augment=Augment(
            (572, 572), flip=0.0, rotate=180.0, colour=0.2, elastic=10.0, border="mirror"
        ),
        task=Segment(2, also=("objects",)),
        optimizer=Optimizer("sgd", rate=2e-3, momentum=0.99, decay=0.0, clip=1.0),
        steps=30_000,
        batch=1,
        save_every=1000,
    )


if __name__ == "__main__":
    cli.main({"phc_u373": experiment(), "dic_hela": experiment(HELA)})
