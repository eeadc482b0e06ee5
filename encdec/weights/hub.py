"""Folders of weights on the Hugging Face hub (extra `hub`); nothing else here uses the network."""

from pathlib import Path
from typing import Any

from encdec.errors import InputError
from encdec.weights.artefact import restore


def push(folder: Path, name: str) -> str:
    """Uploads a folder that `save` wrote, checked first, as "USER/NAME"; returns its address.

    Raises:
      InputError: the folder is damaged; huggingface_hub is missing, or the hub not reached.
    """
    restore(folder)
    hub = _hub()
    try:
        hub.create_repo(name, exist_ok=True)
        return str(hub.upload_folder(repo_id=name, folder_path=folder))
    except Exception as error:  # its failures have no common type
        raise _unreached(name, error) from error


def pull(name: str, revision: str = "main") -> Path:
    """The local copy of "USER/NAME", for `encdec.weights.open`, which checks it.

    Raises:
      InputError: huggingface_hub is missing, or the hub not reached and there is no copy.
    """
    hub = _hub()
    try:
        return Path(hub.snapshot_download(name, revision=revision))
    except Exception as error:
        raise _unreached(name, error) from error


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise InputError("the hub wants its client: pip install 'encdec-jax[hub]'") from None
    return huggingface_hub


def _unreached(name: str, error: Exception) -> InputError:
    line = (str(error).strip() or repr(error)).splitlines()[0]
    return InputError(
        f"{name} was not reached on the hub ({line}): go online, log in, or name a local folder"
    )
