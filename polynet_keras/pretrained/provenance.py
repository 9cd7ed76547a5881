"""The provenance card of a published checkpoint: its record as a page to read."""

from polynet_keras.data.protocol import Preprocessing
from polynet_keras.pretrained.registry import ALIASES, PublishedCheckpoint

CODE = {"sha1": "sha1sum", "sha256": "sha256sum"}


def provenance_card(checkpoint: PublishedCheckpoint) -> str:
    """Markdown: where the file is from, its licence, how to verify it by hand, what it is, what was measured."""
    whole = len(checkpoint.digest) in (40, 64)
    digest = f"`{checkpoint.digest}`" + ("" if whole else " (its first digits; the publisher gives no more)")
    hashed = "the file in the archive" if checkpoint.hash_of == "member" else "the file"
    names = [f'`"{name}"`' for name in (*(a for a, n in ALIASES.items() if n == checkpoint.name), checkpoint.name)]
    urls = " ".join(f"<{url}>" for url in checkpoint.urls) or "in `weights/` of this repository"
    channels = {1: "grey", 3: "RGB", 4: "RGBA"}[checkpoint.channels]
    rows = [
        ("`PolyNet(weights=...)`", " or ".join(names)),
        ("file", f"`{checkpoint.file}`" + (f", {checkpoint.size:,} bytes" if checkpoint.size else "")),
        ("from", urls),
        ("source", checkpoint.source),
        ("licence", checkpoint.license),
        (f"{checkpoint.algorithm.upper().replace('SHA', 'SHA-')} of {hashed}", digest),
        ("format", f"{checkpoint.format}'s names of layers"),
        ("network", f"`{checkpoint.structure.replace('|', chr(92) + '|')}`, width {checkpoint.width:g}"),
        ("classes", f"{checkpoint.classes}"),
        ("input", f"{channels}, {checkpoint.preprocessing.image_size} px: {_protocol(checkpoint.preprocessing)}"),
        *checkpoint.training,
    ]
    lines = [f"# {checkpoint.name}", "", "| what | value |", "| --- | --- |"]
    lines += [f"| {what} | {value.replace(' | ', f' {chr(92)}| ')} |" for what, value in rows]
    lines += ["", "| top-1 | top-5 | images | protocol | measured by |", "| --- | --- | --- | --- | --- |"]
    for a in checkpoint.accuracies:
        top5 = "" if a.top5 is None else f"{a.top5:g} %"
        lines.append(f"| {a.top1:g} % | {top5} | {a.images} | {_protocol(a.preprocessing)} | {a.source} |")
    lines += ["", "Verify by hand:", "", "```bash"]
    read = f"unzip -p {checkpoint.file} | {CODE[checkpoint.algorithm]}"
    lines += [read if checkpoint.hash_of == "member" else f"{CODE[checkpoint.algorithm]} {checkpoint.file}", "```", ""]
    if not whole:
        lines += [
            f"{4 * len(checkpoint.digest)} bits of a hash show that a file is undamaged; they do not keep out one that",
            "was made to have them. Only tensors are read from it (`weights_only`, PyTorch 2.6 or later).",
            "",
        ]
    return "\n".join(lines)


def _protocol(preprocessing: Preprocessing) -> str:
    size = preprocessing.resize_size
    resize = f"resized to {size} x {size} px" if preprocessing.resize == "square" else f"shorter side to {size} px"
    filtered = "antialiased" if preprocessing.antialias else "not antialiased"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    return f"{resize}, bilinear, {filtered}; centre crop; mean {mean}, deviation {std} of [0, 1]"
