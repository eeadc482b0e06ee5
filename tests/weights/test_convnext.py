import pytest

from encdec.encoders.convnext import ConvNeXt, convnext_tiny
from encdec.errors import InputError
from encdec.weights.convnext import names


@pytest.mark.parametrize(
    "source, stem, norm, down, expand, gamma",
    [
        (
            "torchvision",
            "features.0.0",
            "features.2.0",
            "features.2.1",
            "features.5.8.block.3",
            "features.5.8.layer_scale",
        ),
        (
            "timm",
            "stem.0",
            "stages.1.downsample.0",
            "stages.1.downsample.1",
            "stages.2.blocks.8.mlp.fc1",
            "stages.2.blocks.8.gamma",
        ),
        (
            "smp",
            "model.stem_0",
            "model.stages_1.downsample.0",
            "model.stages_1.downsample.1",
            "model.stages_2.blocks.8.mlp.fc1",
            "model.stages_2.blocks.8.gamma",
        ),
    ],
)
def test_names_of_convnext_tiny(source, stem, norm, down, expand, gamma):
    found = dict(names(convnext_tiny(), source))
    assert len(found) == 4 * 2 + 18 * 5
    assert (found["conv1"], found["norm2"], found["conv2"]) == (stem, norm, down)
    assert found["stage3_block9/expand"] == expand
    assert found["stage3_block9/gamma"] == gamma


def test_an_unknown_source_is_refused():
    with pytest.raises(InputError, match="names of torchvision, timm, smp; got 'keras'"):
        list(names(ConvNeXt(), "keras"))
