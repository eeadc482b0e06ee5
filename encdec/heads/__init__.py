from encdec.errors import InputError


def check_classes(classes: int) -> None:
    """Raises InputError unless there is at least one class."""
    if classes < 1:
        raise InputError(f"classes must be at least 1, background included; got {classes}")
