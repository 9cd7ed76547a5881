"""The picture of the imports in docs/design.md, and what the tool that draws it finds wrong."""

import pytest

from tools import draw_imports
from tools.draw_imports import BEGIN, END, ROOT, draw, import_graph, main, problems

LEVELS = [["roof"], ["left", "right"], ["cellar"]]
SOUND = {("roof", "left"): "", ("roof", "right"): "", ("left", "cellar"): "", ("roof", "cellar"): ""}


def graph_with(importer, imported):
    """The package's imports and one more, in line 7."""
    graph = import_graph()
    graph.add_import(importer=importer, imported=imported, line_number=7, line_contents="")
    return graph


def test_the_page_shows_the_imports_that_there_are():
    main(["--check", str(ROOT / "docs" / "design.md")])


def test_a_line_leads_from_each_room_to_what_it_imports():
    """`roof` to `cellar` is not drawn: `roof` to `left` to `cellar` implies it."""
    assert draw(LEVELS, SOUND).splitlines() == [
        "roof   ──┐",
        "left   ◄─┤─┐",
        "right  ◄─┘ │",
        "cellar ◄───┘",
    ]


def test_a_column_is_used_again():
    levels = [["a"], ["b"], ["c"], ["d"]]
    assert draw(levels, {("a", "b"): "", ("c", "d"): ""}).splitlines() == ["a ──┐", "b ◄─┘", "c ──┐", "d ◄─┘"]


def test_sound_arrows_are_no_problem():
    assert problems(LEVELS, SOUND) == []


@pytest.mark.parametrize("arrow", [("cellar", "roof"), ("right", "left")])
def test_an_arrow_that_points_up_or_sideways_is_found(arrow):
    assert problems(LEVELS, {**SOUND, arrow: "file, line 3"}) == [
        f"{arrow[0]} → {arrow[1]} does not point down: file, line 3"
    ]


def test_a_circle_is_found():
    """One of its arrows does not point down."""
    assert len(problems(LEVELS, {**SOUND, ("cellar", "left"): ""})) == 1
    assert len(problems(LEVELS, {("left", "right"): "", ("right", "left"): ""})) == 2


def test_a_room_without_a_level_is_found():
    assert problems(LEVELS, {**SOUND, ("roof", "shed"): "file, line 3"}) == [
        "shed has no level in the import rules of pyproject.toml: file, line 3"
    ]


def test_a_made_up_upward_import_fails_the_check():
    graph = graph_with("polynet_keras.layers.channel_split", "polynet_keras.training.growth")
    with pytest.raises(SystemExit) as stopped:
        main(["--check", str(ROOT / "docs" / "design.md")], graph)
    assert stopped.value.code == (
        "layers → training does not point down: "
        "polynet_keras.layers.channel_split, line 7, imports polynet_keras.training.growth"
    )


def test_a_room_that_imports_the_package_itself_fails_the_check():
    """The package would import something higher in its place."""
    with pytest.raises(SystemExit, match="polynet_keras has no level"):
        main(["--check", str(ROOT / "docs" / "design.md")], graph_with("polynet_keras.layers", "polynet_keras"))


def test_another_picture_fails_the_check_until_it_is_written(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    with pytest.raises(SystemExit, match="--write"):
        main(["--check", str(page)])
    main(["--write", str(page)])
    main(["--check", str(page)])
    main([])
    picture = capsys.readouterr().out
    assert page.read_text() == f"Before.\n\n{BEGIN}\n```\n{picture}```\n{END}\n\nAfter.\n"


def test_a_page_without_the_marks_is_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n")
    with pytest.raises(SystemExit, match=r"page\.md lacks"):
        main(["--check", str(page)])


def test_rules_are_read_from_the_layers():
    text = """
    [[tool.importlinter.contracts]]
    type = "forbidden"
    [[tool.importlinter.contracts]]
    type = "layers"
    layers = ["polynet_keras.roof", "polynet_keras.left | polynet_keras.right"]
    """
    assert draw_imports.read_levels(text) == [["roof"], ["left", "right"]]
