"""What `encdec --help` says: the commands, and examples in the order in which they are needed."""

EXAMPLES = """\
Try it: five networks on scenes that are drawn on first use, and a report
  python experiments/compare.py
  python experiments/shapes_unet.py --steps 50 --workdir runs/first

Your own images, in DIR/images and DIR/masks with the same names
  encdec check folder --root DIR
  python experiments/compare.py folder --data.root DIR
  encdec evaluate --run runs/compare_folder/U-Net/seed0
  encdec predict photo.jpg --run runs/compare_folder/U-Net/seed0 --out predictions
  encdec export --run runs/compare_folder/U-Net/seed0 --out exported

Change it: every field is a flag; before a run, see what it takes
  python experiments/camvid_unet.py --data.root DIR --optimizer.rate 3e-4 --batch 16
  python experiments/camvid_unet.py summary --batch 16
  python experiments/camvid_unet.py --help

Go on with a run that was interrupted: the same command again. Start from other weights
  encdec import-weights resnet18.safetensors --network resnet18 --source torchvision --out weights/resnet18
  python experiments/camvid_unet.py --data.root DIR --start weights/resnet18

Something does not work, or is slow
  encdec doctor
"""  # noqa: E501 (lines to copy)


def overview(commands: dict[str, str]) -> str:
    """The whole help, from what each command does, by name."""
    wide = max(map(len, commands))
    lines = [f"  {name:{wide}}  {does}" for name, does in commands.items()]
    usage = "usage: encdec COMMAND …   (each has --help)"
    return "\n".join([usage, "", *lines, "", EXAMPLES.rstrip()])
