import re
from pathlib import Path

import pytest

from polynet_keras.cli.main import COMMANDS
from tools.list_flags import main, page

PAGE = Path(__file__).parents[2] / "docs" / "flags.md"


def part(command):
    """What the page has of one command."""
    return re.search(rf"(?ms)^### polynet {command}\n(.*?)(?=^##|\Z)", page())[1]


def test_the_page_lists_the_flags_as_they_are():
    main(["--check", str(PAGE)])


def test_a_page_that_is_old_is_made_anew(tmp_path):
    old = tmp_path / "flags.md"
    old.write_text("# Commands and flags\n")
    with pytest.raises(SystemExit, match=r"is out of date; renew it: python tools/list_flags.py --write"):
        main(["--check", str(old)])
    main(["--write", str(old)])
    main(["--check", str(old)])


def test_every_command_has_a_heading_with_its_purpose():
    assert re.findall(r"(?m)^### polynet (\w+)$", page()) == list(COMMANDS)
    assert "\nInsert residual units into a trained net.\n" in part("grow")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("train", "* `--epochs INTEGER`: Passes over the training images. [15; photographs: chosen]"),
        ("train", "* `--width NUMBER`: Multiplier of the channel counts. [0.25; photographs: 0.35]"),
        (
            "train",
            "* `--crops CHOICE`: Crops of each image in `polynet evaluate`: 1, 10 or 144. [1]",
        ),
        ("train", "* `--[no]flip`: Mirror half of the images. [off; photographs: on]"),
        ("train", "**Details of the optimizer** (*rare*)"),
        ("ablation", "* `--depths LIST`: Residual units of the Inception-ResNet, by stage. [1,2,1]"),
        ("ablation", "Old names: `--folder` is now `--output`."),
        ("records", "Old names: an argument after FOLDER is now `--output`."),
        ("doctor", "usage: polynet doctor"),
    ],
)
def test_a_command_has_the_line(command, line):
    assert f"\n{line}\n" in part(command)


def test_a_flag_that_may_be_given_again_is_marked():
    assert "* `--filter TEXT` (*repeatable*): Condition for the rows" in part("results")


def test_a_section_of_several_commands_is_listed_once():
    assert page().count("* `--optimizer CHOICE`") == 1
    assert re.search(r"\nAs in \[polynet train\]\(#polynet-train\): .*\*\*Optimizer\*\*, ", part("benchmark"))
    assert "* `--structure TEXT`" in part("train")
    assert "* `--structure TEXT`" not in part("ablation")  # the study chooses them
