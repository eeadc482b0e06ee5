"""What a shell completes `encdec …` by."""

import shutil
import subprocess

import pytest

from encdec import cli

COMPLETE = """
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _tyro_encdec; echo "${COMPREPLY[*]}"
"""


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Completes the words before the cursor, in bash."""
    from encdec.completion import completion

    commands = ("evaluate", "predict", "check", "summary", "doctor", "import-weights", "newest")
    script = tmp_path_factory.mktemp("bash") / "encdec"
    script.write_text(completion(cli.flags_of(commands), "bash") + COMPLETE)
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")

    def completed(*words):
        command = ["bash", script, "encdec", *words]
        return set(subprocess.run(command, capture_output=True, text=True).stdout.split())

    return completed


@pytest.mark.parametrize(
    "words, found",
    [
        (("pred",), {"predict"}),
        (("ne",), {"newest"}),  # a command whose flags nobody has said
        (("predict", "--til"), {"--tile"}),
        (("check", "cam"), {"camvid"}),
        (("check", "folder", "--bin"), {"--binary"}),
        (("evaluate", "--ru"), {"--run"}),
    ],
)
def test_commands_data_sets_and_flags_are_completed(words, found, complete):
    assert complete(*words) == found


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_every_command_is_in_each_shells_script(shell, call):
    code, out, _ = call("completion", shell)
    assert code == 0
    help_lines = call("--help")[1].split("\n\n")[1].splitlines()
    assert len(help_lines) > 6 and all(line.split()[0] in out for line in help_lines)


def test_another_shell_is_refused(call):
    code, _, err = call("completion", "cmd")
    assert code == 2 and "bash" in err and "Traceback" not in err
