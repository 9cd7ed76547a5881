"""A table on the terminal."""

from collections.abc import Sequence


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table: the first and last column aligned to the left, the numbers between them to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for first, *numbers, last in (header, *rows):
        right = (cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True))
        print("  ".join([first.ljust(widths[0]), *right, last]).rstrip())


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of the same table in GitHub's Markdown."""
    rules = [":--", *["--:"] * (len(header) - 2), ":--"]
    escaped = ([cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in rows)
    return [f"| {' | '.join(cells)} |" for cells in (header, rules, *escaped)]
