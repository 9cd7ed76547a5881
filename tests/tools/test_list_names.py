import pytest

from tools.list_names import ROOT, main, with_lists

PAGE = ROOT / "docs" / "reference.md"


def test_the_reference_lists_the_names_as_they_are():
    main(["--check", str(PAGE)])


def test_a_list_that_is_old_is_made_anew(tmp_path):
    page = tmp_path / "reference.md"
    heading, name = "## Studies: `polynet_keras.studies`", "::: polynet_keras.studies.variants"
    page.write_text(f"# Names\n\n{heading}\n\n* `old`: a name.\n\n{name}\n")
    with pytest.raises(SystemExit, match=r"renew it: python tools/list_names.py --write"):
        main(["--check", str(page)])
    main(["--write", str(page)])
    assert f"{heading}\n\n* `variants`: The nets of the study.\n\n{name}\n" in page.read_text()
    main(["--check", str(page)])


def test_a_name_that_no_stub_has_is_refused():
    with pytest.raises(SystemExit, match="nothing is not in the stub of polynet_keras.studies"):
        with_lists("## Studies: `polynet_keras.studies`\n\n::: polynet_keras.studies.nothing\n")
