import os
import subprocess

import pytest

from polynet_keras.basics.names import check_class_names, number_of, quoted, shell_quoted, shown, size_text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"photo 1.jpg", "photo 1.jpg"),
        ("caf\u00e9 \u732b \u3000.jpg".encode(), "caf\u00e9 \u732b \u3000.jpg"),
        (b"caf\xe9.jpg", "caf\\xe9.jpg"),
        (b"a\r\nb.jpg", "a\\r\\nb.jpg"),
        (b"\x1b[2J.jpg", "\\x1b[2J.jpg"),
        ("\u009b2J.jpg".encode(), "\\x9b2J.jpg"),
        ("\u202egpj.exe".encode(), "\\u202egpj.exe"),
        ("\u2028.jpg".encode(), "\\u2028.jpg"),
    ],
)
def test_names_are_shown_in_one_line_that_commands_nothing(name, expected):
    assert shown(os.fsdecode(name)) == expected
    assert shown(os.fsdecode(name)).encode()


def test_a_command_line_can_be_pasted():
    names = [
        b"plain.jpg",
        b"two words.jpg",
        b"it's.jpg",
        b"caf\xe9.jpg",
        b"a\nb\\'c.jpg",
        b"\x1b[31m.jpg",
        "\u732b.jpg".encode(),
    ]
    line = shell_quoted(map(os.fsdecode, names))
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], stdout=subprocess.PIPE, check=True)
    assert done.stdout.split(b"\0")[:-1] == names


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "a\x00", "a\x85", "\u2029"])
def test_class_names_that_no_file_can_hold(name):
    check_class_names(["cat", "\u732b", 'a, "b"', "\U0001f469\u200d\U0001f52c"], "x")
    with pytest.raises(ValueError, match="x has the class '.*': a class's name must be UTF-8 text"):
        check_class_names(["cat", name], "x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stem", "'stem'"),
        ("a\nb\x1b[31m", r"'a\nb\x1b[31m'"),
        ("caf\udce9", r"'caf\xe9'"),
        ("\u202ename", r"'\u202ename'"),
        ("x" * 80, f"'{'x' * 80}'"),
        ("x" * 1_000_000, f"'{'x' * 80}…'"),
        ("\n" * 1_000_000, "'" + r"\n" * 80 + "…'"),
        (3, "'3'"),
    ],
)
def test_names_out_of_files_are_quoted_in_one_line_of_bounded_length(name, message):
    assert quoted(name) == message


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [(1, ("shard",), "1 shard"), (0, ("class", "classes"), "0 classes"), (1024, ("image",), "1,024 images")],
)
def test_a_number_of_things(number, noun, expected):
    assert number_of(number, *noun) == expected


def test_a_shape_is_no_tuple():
    assert size_text((331, 331, 3)) == "331 x 331 x 3"
    assert size_text((None, 10)) == "any x 10"
    assert size_text(("75", 75)) == "'75' x 75"
    assert size_text(()) == "a single number"
