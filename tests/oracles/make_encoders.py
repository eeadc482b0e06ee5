"""Writes the encoders' files of maps and gradients: `python -m tests.oracles.make_encoders`.

Needs torch, torchvision, timm and smp (`pip install -e '.[bench]'`); reading the files does not.
PyTorch computes in float64.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.networks import declare_operators
from tests.oracles import cases, encoders, networks
from tests.oracles.encoders import CASES

if not torch.cuda.is_available():
    declare_operators()

IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
"""Mean and deviation that our encoders subtract and divide by."""

Places = dict[int, str]
"""Stride -> the module whose output is that map."""

RESNET = {2: "relu", 4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}
DENSENET = {
    2: "features.relu0",
    **{2 ** (i + 1): f"features.transition{i}.relu" for i in (1, 2, 3)},
    32: "features.norm5",
}
BLOCKS = {2: "blocks.0", 4: "blocks.1", 8: "blocks.2", 16: "blocks.4", 32: "blocks.6"}
SMALL = {2: "act1", 4: "blocks.0", 8: "blocks.1", 16: "blocks.3", 32: "blocks.5"}
"""timm's EfficientNet, and its MobileNet V3, small."""


class Features(nn.Module):
    """A trunk by the name that published nets give it, without the classifier of VGG."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


def resnet(
    kind: str, blocks: tuple[int, ...], base: int = 64, groups: int = 1, dilated: bool = False
) -> tuple[nn.Module, Places]:
    dilate = (False, True, True) if dilated else ()
    net = networks.resnet(kind, blocks, 4, dilate)(groups=groups, width_per_group=base)
    return net, {2: "relu", 4: "layer1", 8: "layer4"} if dilated else RESNET


def vgg(norm: bool) -> tuple[nn.Module, Places]:
    from torchvision.models.vgg import make_layers

    table = [2, 2, "M", 3, 3, "M", 4, 4, 4, "M", 5, 5, 5, "M", 6, 6, 6, "M"]
    net = Features(make_layers(table, batch_norm=norm))
    pools = [n for n, module in net.named_modules() if isinstance(module, nn.MaxPool2d)]
    return net, dict(zip((2, 4, 8, 16, 32), pools, strict=True))


def densenet() -> tuple[nn.Module, Places]:
    from torchvision.models import DenseNet

    return DenseNet(4, (1, 2, 1, 1), num_init_features=6, num_classes=1), DENSENET


def convnext() -> tuple[nn.Module, Places]:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    widths, blocks = (4, 6, 8, 10, None), (1, 2, 2, 1)
    stages = [CNBlockConfig(*widths[i : i + 2], blocks[i]) for i in range(4)]
    return ConvNeXt(stages, num_classes=1), {
        2 ** (i + 1): f"features.{2 * i - 1}" for i in range(1, 5)
    }


def dilated(output_stride: int) -> tuple[nn.Module, Places]:
    from timm.models.convnext import ConvNeXt

    net = ConvNeXt(
        num_classes=1, output_stride=output_stride, depths=(1, 2, 2, 1), dims=(4, 6, 8, 10)
    )
    return net, {min(2 ** (i + 2), output_stride): f"stages.{i}" for i in range(4)}


def mobilenet_v2() -> tuple[nn.Module, Places]:
    from torchvision.models import MobileNetV2

    table = [[t, c, n, s] for t, c, n, s in encoders.V2]
    net = MobileNetV2(width_mult=0.25, inverted_residual_setting=table)
    return net, {2 ** (i + 1): f"features.{n}" for i, n in enumerate((1, 3, 4, 6, 8))}


def mobilenet_v3() -> tuple[nn.Module, Places]:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    rows, inputs = [], 8
    for kernel, expanded, channels, squeeze, nonlinearity, stride in encoders.V3:
        row = (inputs, kernel, expanded, channels, squeeze, nonlinearity, stride, 1, 1.0)
        rows.append(InvertedResidualConfig(*row))
        inputs = channels
    net = MobileNetV3(rows, last_channel=8)
    return net, {2 ** (i + 1): f"features.{n}" for i, n in enumerate((0, 1, 3, 5, 8))}


def timm(name: str, places: Places, **options: int) -> tuple[nn.Module, Places]:
    from timm import create_model

    return create_model(name, features_only=True, **options), places


def efficientnet() -> tuple[nn.Module, Places]:
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    rows, inputs = [], 32
    for t, k, c, n, s in encoders.B0:
        rows.append(MBConvConfig(t, k, s, inputs, c, n, width_mult=0.25))
        inputs = c
    net = EfficientNet(rows, dropout=0, stochastic_depth_prob=0)
    net.features = net.features[:-1]  # the last layer makes no map
    return net, {2 ** (i + 1): f"features.{n}" for i, n in enumerate((0, 2, 3, 4, 5))}


def smp() -> tuple[nn.Module, Places]:
    """`efficientnet-b1`, narrow and shallow, for images of 240 pixels."""
    from unittest import mock

    from segmentation_models_pytorch.encoders import efficientnet as published

    def narrow(name: str, override_params: None) -> tuple:
        options = {"width_coefficient": 0.5, "depth_coefficient": 0.4}
        return read(name, options)

    read = published.get_model_params
    with mock.patch.object(published, "get_model_params", narrow):
        net = published.EfficientNetEncoder([1, 2, 6, 9], [3] * 6, "efficientnet-b1")
    del net._conv_head, net._bn1  # of no map
    net._drop_connect_rate = 0
    blocks = {2 ** (i + 2): f"_blocks.{n}" for i, n in enumerate((1, 2, 6, 9))}
    return net, {2: "_swish"} | blocks


BUILDERS: dict[str, Callable[[], tuple[nn.Module, Places]]] = {
    "resnet_basic": lambda: resnet("basic", (2, 1, 2, 1)),
    "resnet_bottleneck": lambda: resnet("bottleneck", (2, 1, 2, 1)),
    "resnet_resnext": lambda: resnet("bottleneck", (1, 1, 1, 1), 32, 4),
    "resnet_resnext_dilated": lambda: resnet("bottleneck", (1, 2, 2, 2), 32, 4, dilated=True),
    "resnet_wide": lambda: resnet("bottleneck", (1, 1, 1, 1), 128),
    "vgg_plain": lambda: vgg(norm=False),
    "vgg_batch": lambda: vgg(norm=True),
    "densenet_plain": densenet,
    "convnext_plain": convnext,
    "convnext_dilated_16": lambda: dilated(16),
    "convnext_dilated_8": lambda: dilated(8),
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "mobilenet_v3_dilated": lambda: timm(
        "mobilenetv3_small_100", {2: "act1", 4: "blocks.0", 8: "blocks.5"}, output_stride=8
    ),
    "mobilenet_v3_same": lambda: timm("tf_mobilenetv3_small_100", SMALL),
    "efficientnet_plain": efficientnet,
    "efficientnet_lite": lambda: timm("tf_efficientnet_lite0", BLOCKS),
    "efficientnet_lite_dilated": lambda: timm(
        "tf_efficientnet_lite0",
        {2: "blocks.0", 4: "blocks.1", 8: "blocks.2", 16: "blocks.6"},
        output_stride=16,
    ),
    "efficientnet_smp": smp,
}


def drop_heads(net: nn.Module) -> None:
    for head in {"fc", "classifier", "head"} & {name for name, _ in net.named_children()}:
        setattr(net, head, nn.Identity())


def rounded_up(net: nn.Module) -> None:
    """Lets poolings without padding and convolutions in patches keep the last pixels of odd maps:
    sizes round up, as ours do; all libraries drop those pixels."""

    def filled(module: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        rows, columns = (-n % module.stride[0] for n in inputs[0].shape[2:])
        return functional.pad(inputs[0], (0, columns, 0, rows))

    for module in net.modules():
        if isinstance(module, nn.AvgPool2d):
            module.ceil_mode, module.count_include_pad = True, False
        elif isinstance(module, nn.MaxPool2d) and not module.padding:
            module.ceil_mode = True
        elif isinstance(module, nn.Conv2d) and module.stride == module.kernel_size != (1, 1):
            module.register_forward_pre_hook(filled)


def watched(net: nn.Module, places: Places) -> dict[str, torch.Tensor]:
    """Holds the maps of the next forward pass, by "output/stride"."""
    maps: dict[str, torch.Tensor] = {}

    def keep(stride: int) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            maps[f"output/{stride}"] = output.clone()  # a ReLU in place may follow

        return hook

    for stride, place in places.items():
        net.get_submodule(place).register_forward_hook(keep(stride))
    return maps


def variances(net: nn.Module) -> dict[str, torch.Tensor]:
    """Holds the running variances after the next forward pass as ours are, by their names: of the
    batch (n), where PyTorch takes n - 1."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            now = inputs[0].detach().var((0, 2, 3), correction=0)
            kept = (1 - norm.momentum) * norm.running_var
            found[f"{name}.running_var"] = kept + norm.momentum * now

        return hook

    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(keep(name))
    return found


def fill(net: nn.Module, noise: float = 0.0) -> dict[str, torch.Tensor]:
    """Gives the net the weights of its names; returns them, without counters.

    Args:
      noise: every weight is wrong by about this share.
    """
    tensors = dict(net.named_parameters()) | dict(net.named_buffers())
    found = {name: tensor for name, tensor in tensors.items() if tensor.ndim}
    for name, tensor in found.items():
        module, leaf = encoders.split(name, tensor.ndim)
        shape = encoders.ours(np.empty(tensor.shape)).shape
        values = encoders.weight(module, leaf, shape)
        values *= 1 + noise * cases.draw(f"noise of {name}", *shape)
        tensor.data.copy_(torch.from_numpy(encoders.theirs(values, tuple(tensor.shape))))
    return found


def computed(name: str, noise: float = 0.0) -> dict[str, np.ndarray]:
    """Sketches of the case's maps; in training of gradients and statistics too."""
    case = CASES[name]
    net, places = BUILDERS[name.removesuffix("_odd").removesuffix("_train")]()
    drop_heads(net)
    net = net.double().train(case.train)
    found = fill(net, noise)
    rounded_up(net)
    maps, batch = watched(net, places), variances(net)
    images = torch.from_numpy(cases.images(case)).requires_grad_()
    mean, std = torch.from_numpy(IMAGENET)
    net(((images - mean) / std).permute(0, 3, 1, 2))
    maps = {key: x.permute(0, 2, 3, 1) for key, x in maps.items()}
    arrays = {key: x.detach().numpy() for key, x in maps.items()}
    if case.train:
        sum(
            (x * torch.from_numpy(cases.cotangent(key, tuple(x.shape)))).sum()
            for key, x in maps.items()
        ).backward()
        arrays["gradient/images"] = images.grad.numpy()
        for key, tensor in found.items():
            kind = "gradient" if isinstance(tensor, nn.Parameter) else "statistic"
            values = tensor.grad if kind == "gradient" else batch.get(key, tensor)
            path = "/".join(encoders.split(key, tensor.ndim))
            arrays[f"{kind}/{path}"] = encoders.ours(values.numpy())
    sketches = {key: cases.sketch(key, array) for key, array in arrays.items()}
    modules = sorted("/".join(encoders.split(key, t.ndim)) for key, t in found.items())
    return sketches | {"names": np.array(modules, "S")}


def main() -> None:
    from tests.oracles.make import NOISE, STABLE

    for name in CASES:
        arrays = computed(name)
        values = {key: x for key, x in arrays.items() if key != "names"}
        worst, where = max(cases.difference(computed(name, noise), values) for noise in NOISE)
        if worst > STABLE:
            raise SystemExit(f"{name}: rounding changes {where} by {worst:.1e}; take another seed")
        np.savez(cases.FOLDER / f"{name}.npz", **arrays)
        print(f"{name}: {(cases.FOLDER / f'{name}.npz').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
