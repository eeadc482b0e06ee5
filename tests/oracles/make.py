"""Writes the files of outputs and gradients beside it: `python -m tests.oracles.make`.

Needs torch, torchvision and segmentation_models_pytorch (`pip install -e '.[bench]'`); reading the
files does not. PyTorch computes in float64.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from benchmarks.networks import declare_operators
from tests.oracles import cases, networks
from tests.oracles.cases import CASES

if not torch.cuda.is_available():
    declare_operators()

Names = dict[str, str]
"""Of a layer: path in our tree -> in PyTorch's net."""

IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
"""Mean and deviation that our encoders subtract and divide by."""
PLAIN = np.array([[0.0], [1.0]])

VGG16 = {
    f"encoder/conv{stage}_{i}/conv": f"trunk.conv{stage}_{i}"
    for stage, count in enumerate((2, 2, 3, 3, 3), 1)
    for i in range(1, count + 1)
}
FC = {"encoder/fc6": "trunk.fc6", "encoder/fc7": "trunk.fc7"}
ALEXNET = {f"encoder/conv{i}": f"trunk.conv{i}" for i in range(1, 6)}
SCORES = {
    32: {"decoder/lateral_s32/conv": "score_fr"},
    16: {"decoder/lateral_s16/conv": "score_pool4"},
    8: {"decoder/lateral_s8/conv": "score_pool3"},
}
UPSCORES = {
    32: {"head/deconvolution": "upscore"},
    16: {"decoder/upsample_s16/conv": "upscore2"},
    8: {"decoder/upsample_s8/conv": "upscore_pool4"},
}


def fcn(
    last: tuple[int, int, int], learned: bool, scales: tuple[float, float] = (1.0, 1.0)
) -> tuple[nn.Module, Names]:
    net = networks.FCN(networks.VGG16((2, 3, 4, 5, 6), (7, 7)), (4, 5, 7), 3, last, learned, scales)
    names = VGG16 | FC
    for stride in (32, 16, 8):
        if stride >= last[1]:
            names = names | SCORES[stride] | (UPSCORES[stride] if learned else {})
    return net, names


def alexnet(learned: bool) -> tuple[nn.Module, Names]:
    trunk = networks.AlexNet((4, 6, 8, 8, 6), (7, 7))
    net = networks.FCN(trunk, (0, 0, 7), 3, (63, 32, 18), learned)
    return net, ALEXNET | FC | SCORES[32] | (UPSCORES[32] if learned else {})


def unet(released: bool) -> tuple[nn.Module, Names]:
    names = {"head/score": "out"}
    for level in range(5):
        names |= {f"encoder/conv{i}_s{2**level}/conv": f"d{level}{'ab'[i - 1]}" for i in (1, 2)}
    for level in range(4):
        names |= {f"decoder/upsample_s{2**level}/conv": f"u{level}"}
        names |= {
            f"decoder/refine_s{2**level}/conv{i}/conv": f"u{level}{'ab'[i - 1]}" for i in (1, 2)
        }
    return networks.UNet(2, 2, released), names


def resnet(trunk: str, blocks: tuple[int, ...], convs: int) -> Names:
    """Names of a ResNet whose blocks have that many convolutions."""
    names = {"encoder/conv1": f"{trunk}.conv1", "encoder/norm1/batch": f"{trunk}.bn1"}
    for stage, count in enumerate(blocks, 1):
        for i in range(count):
            ours, theirs = f"encoder/stage{stage}_block{i + 1}", f"{trunk}.layer{stage}.{i}"
            for j in range(1, convs + 1):
                names |= {f"{ours}/conv{j}": f"{theirs}.conv{j}"}
                names |= {f"{ours}/norm{j}/batch": f"{theirs}.bn{j}"}
            names |= {f"{ours}/conv_skip": f"{theirs}.downsample.0"}
            names |= {f"{ours}/norm_skip/batch": f"{theirs}.downsample.1"}
    return names


def semantic_fpn() -> tuple[nn.Module, Names]:
    trunk = networks.Stages(networks.resnet("bottleneck", (1, 1, 1, 1), 4)())
    names = resnet("trunk.trunk", (1, 1, 1, 1), 3) | {"head/score": "score"}
    for level in (2, 3, 4, 5):
        stride = 2**level
        names |= {f"decoder/lateral_s{stride}/conv": f"lateral{level}"}
        names |= {f"decoder/output_s{stride}/conv": f"smooth{level}"}
        for stage in range(max(level - 2, 1)):
            ours = f"head/stage_s{stride}_from{stride // 2**stage}"
            names |= {f"{ours}/conv": f"conv{level}_{stage}"}
            names |= {f"{ours}/norm/group": f"norm{level}_{stage}"}
    return networks.SemanticFPN(trunk, (16, 32, 64, 128), 8, 64, 3), names


def dilated(train: bool) -> tuple[nn.Module, Names]:
    names = resnet("net.backbone", (1, 2, 2, 2), 3)
    heads = {"logits": "net.classifier", "aux": "net.aux_classifier"}
    for ours, theirs in heads.items():
        if train or ours == "logits":
            names |= {f"head/{ours}_conv/conv": f"{theirs}.0"}
            names |= {f"head/{ours}_conv/norm/batch": f"{theirs}.1"}
            names |= {f"head/{ours}_score": f"{theirs}.4"}
    return networks.Dilated((1, 2, 2, 2), 4, 3), names


def smp_unet(attention: str | None) -> tuple[nn.Module, Names]:
    names = resnet("net.encoder", (1, 1, 1, 1), 2)
    names |= {"head/score": "net.segmentation_head.0"}
    for i, stride in enumerate((16, 8, 4, 2, 1)):
        ours, theirs = f"decoder/refine_s{stride}", f"net.decoder.blocks.{i}"
        for j in (1, 2):
            names |= {f"{ours}/conv{j}/conv": f"{theirs}.conv{j}.0"}
            names |= {f"{ours}/conv{j}/norm/batch": f"{theirs}.conv{j}.1"}
            if attention and (j == 2 or stride > 1):  # it is there at stride 1 too, and not used
                scse = f"{theirs}.attention{j}.attention"
                names |= {f"{ours}/attention{j}/squeeze": f"{scse}.cSE.1"}
                names |= {f"{ours}/attention{j}/excite": f"{scse}.cSE.3"}
                names |= {f"{ours}/attention{j}/cells": f"{scse}.sSE.0"}
    options = {"decoder_attention_type": attention} if attention else {}
    return networks.Smp("Unet", (1, 1, 1, 1), 4, 3, **options), names


def smp_fpn() -> tuple[nn.Module, Names]:
    names = resnet("net.encoder", (1, 1, 1, 1), 2)
    names |= {"head/score": "net.segmentation_head.0"}
    for i, level in enumerate((5, 4, 3, 2)):
        lateral = "p5" if level == 5 else f"p{level}.skip_conv"
        names |= {f"decoder/lateral_s{2**level}/conv": f"net.decoder.{lateral}"}
        for stage in range(max(level - 2, 1)):
            ours = f"head/stage_s{2**level}_from{2 ** (level - stage)}"
            theirs = f"net.decoder.seg_blocks.{i}.block.{stage}.block"
            names |= {f"{ours}/conv": f"{theirs}.0", f"{ours}/norm/group": f"{theirs}.1"}
    return networks.Smp("FPN", (1, 1, 1, 1), 4, 3), names


BUILDERS: dict[str, Callable[[], tuple[nn.Module, Names]]] = {
    "fcn32s": lambda: fcn((64, 32, 19), learned=False),
    "fcn16s": lambda: fcn((32, 16, 27), learned=False),
    "fcn8s": lambda: fcn((16, 8, 31), learned=False),
    "fcn8s_learned": lambda: fcn((16, 8, 31), learned=True),
    "fcn8s_at_once": lambda: fcn((16, 8, 31), learned=False, scales=(0.01, 0.0001)),
    "fcn_alexnet": lambda: alexnet(learned=False),
    "fcn_alexnet_learned": lambda: alexnet(learned=True),
    "unet": lambda: unet(released=False),
    "unet_released": lambda: unet(released=True),
    "semantic_fpn": semantic_fpn,
    "dilated_fcn": lambda: dilated(train=False),
    "dilated_fcn_train": lambda: dilated(train=True),
    "smp_unet": lambda: smp_unet(None),
    "smp_unet_scse": lambda: smp_unet("scse"),
    "smp_fpn": smp_fpn,
}


def leaves(layer: nn.Module) -> Iterator[tuple[str, torch.Tensor, tuple[int, ...], bool]]:
    """Our leaf's name; the tensor; the axes that bring it into our layout; is it turned round?"""
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out, h, w), and ours is used as it lies
        yield "kernel", layer.weight, (2, 3, 0, 1), True
    elif isinstance(layer, nn.Conv2d):
        yield "kernel", layer.weight, (2, 3, 1, 0), False
    else:
        yield "scale", layer.weight, (0,), False
    if layer.bias is not None:
        yield "bias", layer.bias, (0,), False
    if isinstance(layer, nn.BatchNorm2d):
        yield "mean", layer.running_mean, (0,), False
        yield "var", layer.running_var, (0,), False


def ours(array: np.ndarray, axes: tuple[int, ...], turned: bool) -> np.ndarray:
    """PyTorch's array in our layout."""
    array = array.transpose(axes)
    return array[::-1, ::-1] if turned else array


def theirs(array: np.ndarray, axes: tuple[int, ...], turned: bool) -> np.ndarray:
    """Ours in PyTorch's."""
    return np.ascontiguousarray(
        (array[::-1, ::-1] if turned else array).transpose(np.argsort(axes))
    )


def filled(
    net: nn.Module, names: Names, noise: float = 0.0
) -> dict[str, tuple[torch.Tensor, tuple[int, ...], bool]]:
    """Gives the net the weights of its names; its tensors by our path, with axes and turn.

    Args:
      noise: every weight is wrong by about this share.
    """
    layers = dict(net.named_modules())
    found = {
        f"{path}/{leaf}": (tensor, axes, turned)
        for path, layer in names.items()
        if layer in layers  # not every block of a ResNet has a projection
        for leaf, tensor, axes, turned in leaves(layers[layer])
    }
    for path, (tensor, axes, turned) in found.items():
        shape = ours(np.empty(tensor.shape), axes, turned).shape
        weight = cases.weight(path, shape) * (1 + noise * cases.draw(f"noise of {path}", *shape))
        tensor.data.copy_(torch.from_numpy(theirs(weight, axes, turned)))
    return found


def steps(noise: float = 0.0) -> dict[str, np.ndarray]:
    """The losses of five steps of SGD with momentum on smp's U-Net; then sketches of its weights
    and running means."""
    net, names = smp_unet(None)
    net = net.double().train()
    found = filled(net, names, noise)
    mean, std = torch.from_numpy(IMAGENET)
    images = (torch.from_numpy(cases.images(cases.STEPS)) - mean) / std
    labels = torch.from_numpy(cases.labels(cases.STEPS, 3))
    sgd = torch.optim.SGD(net.parameters(), cases.RATE, momentum=0.9)
    losses = []
    for _ in range(5):
        sgd.zero_grad()
        logits = net(images.permute(0, 3, 1, 2))["logits"]
        loss = nn.functional.cross_entropy(logits, labels, ignore_index=255)
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    arrays = {
        path: cases.sketch(path, ours(tensor.detach().numpy(), axes, turned))
        for path, (tensor, axes, turned) in found.items()
        if not path.endswith("var")
    }
    return {"losses": np.array(losses)} | arrays


def computed(name: str, noise: float = 0.0) -> dict[str, np.ndarray]:
    """Sketches of the case's outputs and gradients, by their names in our trees."""
    case, (net, names) = CASES[name], BUILDERS[name]()
    net = net.double().train(case.train)
    found = filled(net, names, noise)
    images = torch.from_numpy(cases.images(case)).requires_grad_()
    mean, std = (
        torch.tensor(v, dtype=torch.float64) for v in (PLAIN if case.size[-1] == 1 else IMAGENET)
    )
    outputs = net(((images - mean) / std).permute(0, 3, 1, 2))
    outputs = {name: x.permute(0, 2, 3, 1) for name, x in outputs.items()}
    sum(
        (x * torch.from_numpy(cases.cotangent(name, x.shape))).sum() for name, x in outputs.items()
    ).backward()
    trained = {id(p) for p in net.parameters() if p.grad is not None}
    if unnamed := trained - {id(tensor) for tensor, _, _ in found.values()}:
        raise AssertionError(f"{name}: {len(unnamed)} parameters have no name of ours")
    arrays = {f"output/{name}": x.detach().numpy() for name, x in outputs.items()}
    arrays |= {"gradient/images": images.grad.numpy()}
    for path, (tensor, axes, turned) in found.items():
        if isinstance(tensor, nn.Parameter):
            arrays[f"gradient/{path}"] = ours(tensor.grad.numpy(), axes, turned)
        elif case.train and path.endswith("mean"):
            arrays[f"statistic/{path}"] = tensor.numpy()
    return {name: cases.sketch(name, array) for name, array in arrays.items()}


NOISE, STABLE = (1e-6, -1e-6, 3e-6), 2e-4
"""Shares: of weights that are wrong, and of what comes out that may then be."""


def main() -> None:
    np.savez(cases.FOLDER / "steps.npz", **steps())
    for name in CASES:
        arrays = computed(name)
        worst, where = max(cases.difference(computed(name, noise), arrays) for noise in NOISE)
        if worst > STABLE:
            raise SystemExit(f"{name}: rounding changes {where} by {worst:.1e}; take another seed")
        np.savez(cases.FOLDER / f"{name}.npz", **arrays)
        print(f"{name}: {(cases.FOLDER / f'{name}.npz').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
