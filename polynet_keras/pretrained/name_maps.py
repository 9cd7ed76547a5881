"""What published implementations call the layers of G5: one table for each, to be read from top to bottom.

A table maps a layer of the source (its variable's key without the last part, `.weight` or `/kernel`) to our layer.
Sources: `polynet.py` of `pretrainedmodels` (R. Cadene), of `pytorchcv` and of `tf2cv` (both of O. Sémery's imgclsmob).
"""

from collections.abc import Iterator

from polynet_keras.models.structure import STRUCTURES

Table = dict[str, str]
Pairs = Iterator[tuple[str, str]]

POLY_3 = "I + F + F^2 + F^3"
ORDERS = ("f", "ff", "fff")
"""Our names for the three applications of poly-3's block: F(x), F(F(x)), F(F(F(x)))."""
WAYS = ("f", "g")
"""Our names for the two blocks of a 2-way module."""


def cadene() -> Table:
    """Keys of the state dict of `pretrainedmodels`, whose modules are counted from 0 in each stage."""
    return dict(_cadene())


def pytorchcv() -> Table:
    """Keys of the state dict of `pytorchcv`: a unit holds a poly-3 and the 2-way module after it."""
    return dict(_pytorchcv())


def tf2cv() -> Table:
    """Names of `tf2cv`'s variables, their repeated parts dropped: pytorchcv's, with two lists numbered otherwise."""
    counted_from_1 = {"res_blocks.0": "res_block1", "res_blocks.1": "res_block2", "res_blocks.2": "res_block3"}
    counted_from_1 |= {"bns.0": "bn1", "bns.1": "bn2", "bns.2": "bn3"}
    table = {}
    for source, ours in _pytorchcv():
        for theirs, here in {**counted_from_1, "output.fc": "output1.fc"}.items():
            source = source.replace(theirs, here)
        table[without_repeats(source.replace(".", "/"))] = ours
    return table


def without_repeats(name: str) -> str:
    """`a/a/b/conv/conv/kernel` as `a/b/conv/kernel`: tf2cv's layers repeat the scopes that they are in."""
    parts = name.split("/")
    return "/".join(part for part, before in zip(parts, [None, *parts[:-1]], strict=True) if part != before)


def _cadene() -> Pairs:
    yield from _with_bn("stem.conv1.0", "stem_conv1")
    yield from _with_bn("stem.conv1.1", "stem_conv2")
    yield from _with_bn("stem.conv1.2", "stem_conv3")
    yield from _with_bn("stem.conv1_branch", "stem_mixed1_branch2_conv1")
    yield from _with_bn("stem.conv2_short.0", "stem_mixed2_branch1_conv1")
    yield from _with_bn("stem.conv2_short.1", "stem_mixed2_branch1_conv2")
    yield from _with_bn("stem.conv2_long.0", "stem_mixed2_branch2_conv1")
    yield from _with_bn("stem.conv2_long.1", "stem_mixed2_branch2_conv2")
    yield from _with_bn("stem.conv2_long.2", "stem_mixed2_branch2_conv3")
    yield from _with_bn("stem.conv2_long.3", "stem_mixed2_branch2_conv4")
    yield from _with_bn("stem.conv2_branch", "stem_mixed3_branch2_conv1")

    shared = {  # the convolutions of a poly-3, each with a normalization for every order
        "b": {
            "path0_1x1": "branch1_conv1",
            "path0_1x7": "branch1_conv2",
            "path0_7x1": "branch1_conv3",
            "path1": "branch2_conv1",
        },
        "c": {
            "path0_1x1": "branch1_conv1",
            "path0_1x3": "branch1_conv2",
            "path0_3x1": "branch1_conv3",
            "path1": "branch2_conv1",
        },
    }
    for stage, number, polynomial in _modules():
        source, ours = f"stage_{stage}.{number - 1}", f"stage_{stage}_{number:02d}"
        if polynomial == POLY_3:
            for path, conv in shared[stage].items():
                yield f"{source}.{path}.conv", f"{ours}_f_{conv}"
                for k, order in enumerate(ORDERS):
                    yield f"{source}.{path}.bn_blocks.{k}", f"{ours}_{order}_{conv}_bn"
            for k, order in enumerate(ORDERS):
                yield from _with_bn(f"{source}.conv2d_blocks.{k}", f"{ours}_{order}_projection")
            continue
        for k, way in enumerate(WAYS):
            block, here = f"{source}.blocks.{k}", f"{ours}_{way}"
            yield from _with_bn(f"{block}.path0.0", f"{here}_branch1_conv1")
            yield from _with_bn(f"{block}.path0.1", f"{here}_branch1_conv2")
            yield from _with_bn(f"{block}.path0.2", f"{here}_branch1_conv3")
            if stage == "a":
                yield from _with_bn(f"{block}.path1.0", f"{here}_branch2_conv1")
                yield from _with_bn(f"{block}.path1.1", f"{here}_branch2_conv2")
                yield from _with_bn(f"{block}.path2", f"{here}_branch3_conv1")
            else:
                yield from _with_bn(f"{block}.path1", f"{here}_branch2_conv1")
            yield from _with_bn(f"{block}.conv2d", f"{here}_projection")

    yield from _with_bn("reduction_a.path0.0", "reduction_a_branch1_conv1")
    yield from _with_bn("reduction_a.path0.1", "reduction_a_branch1_conv2")
    yield from _with_bn("reduction_a.path0.2", "reduction_a_branch1_conv3")
    yield from _with_bn("reduction_a.path1", "reduction_a_branch2_conv1")
    yield from _with_bn("reduction_b.path0.0", "reduction_b_branch1_conv1")
    yield from _with_bn("reduction_b.path0.1", "reduction_b_branch1_conv2")
    yield from _with_bn("reduction_b.path0.2", "reduction_b_branch1_conv3")
    yield from _with_bn("reduction_b.path1.0", "reduction_b_branch2_conv1")
    yield from _with_bn("reduction_b.path1.1", "reduction_b_branch2_conv2")
    yield from _with_bn("reduction_b.path2.0", "reduction_b_branch3_conv1")
    yield from _with_bn("reduction_b.path2.1", "reduction_b_branch3_conv2")
    yield "last_linear", "predictions"


def _pytorchcv() -> Pairs:
    init = "features.init_block"
    yield from _with_bn(f"{init}.conv1", "stem_conv1")
    yield from _with_bn(f"{init}.conv2", "stem_conv2")
    yield from _with_bn(f"{init}.conv3", "stem_conv3")
    yield from _with_bn(f"{init}.block1.branches.branch2.conv", "stem_mixed1_branch2_conv1")
    yield from _with_bn(f"{init}.block2.branches.branch1.conv_list.conv1", "stem_mixed2_branch1_conv1")
    yield from _with_bn(f"{init}.block2.branches.branch1.conv_list.conv2", "stem_mixed2_branch1_conv2")
    yield from _with_bn(f"{init}.block2.branches.branch2.conv_list.conv1", "stem_mixed2_branch2_conv1")
    yield from _with_bn(f"{init}.block2.branches.branch2.conv_list.conv2", "stem_mixed2_branch2_conv2")
    yield from _with_bn(f"{init}.block2.branches.branch2.conv_list.conv3", "stem_mixed2_branch2_conv3")
    yield from _with_bn(f"{init}.block2.branches.branch2.conv_list.conv4", "stem_mixed2_branch2_conv4")
    yield from _with_bn(f"{init}.block3.branches.branch2.conv", "stem_mixed3_branch2_conv1")

    for stage, number, polynomial in _modules():
        ours = f"stage_{stage}_{number:02d}"
        if stage == "a":
            unit = f"features.stage1.unit{number}"
        else:  # the reduction is unit 1 of its stage, and a unit has two modules
            unit = f"features.stage{'abc'.index(stage) + 1}.unit{(number + 1) // 2 + 1}"
        if polynomial == POLY_3:
            for path, conv in {
                "branch1.conv_list.conv1": "branch1_conv1",
                "branch1.conv_list.conv2": "branch1_conv2",
                "branch1.conv_list.conv3": "branch1_conv3",
                "branch2": "branch2_conv1",
            }.items():
                source = f"{unit}.poly.pre_block.branches.{path}"
                yield f"{source}.conv", f"{ours}_f_{conv}"
                for k, order in enumerate(ORDERS):
                    yield f"{source}.bns.{k}", f"{ours}_{order}_{conv}_bn"
            for k, order in enumerate(ORDERS):
                yield from _with_bn(f"{unit}.poly.res_blocks.{k}", f"{ours}_{order}_projection")
            continue
        for k, way in enumerate(WAYS):
            block, here = f"{unit}.twoway.res_blocks.{k}", f"{ours}_{way}"
            yield from _with_bn(f"{block}.branches.branch1.conv_list.conv1", f"{here}_branch1_conv1")
            yield from _with_bn(f"{block}.branches.branch1.conv_list.conv2", f"{here}_branch1_conv2")
            yield from _with_bn(f"{block}.branches.branch1.conv_list.conv3", f"{here}_branch1_conv3")
            if stage == "a":
                yield from _with_bn(f"{block}.branches.branch2.conv_list.conv1", f"{here}_branch2_conv1")
                yield from _with_bn(f"{block}.branches.branch2.conv_list.conv2", f"{here}_branch2_conv2")
                yield from _with_bn(f"{block}.branches.branch3.conv", f"{here}_branch3_conv1")
            else:
                yield from _with_bn(f"{block}.branches.branch2.conv", f"{here}_branch2_conv1")
            yield from _with_bn(f"{block}.conv", f"{here}_projection")

    reduction = "features.stage2.unit1.branches"
    yield from _with_bn(f"{reduction}.branch1.conv_list.conv1", "reduction_a_branch1_conv1")
    yield from _with_bn(f"{reduction}.branch1.conv_list.conv2", "reduction_a_branch1_conv2")
    yield from _with_bn(f"{reduction}.branch1.conv_list.conv3", "reduction_a_branch1_conv3")
    yield from _with_bn(f"{reduction}.branch2.conv_list.conv1", "reduction_a_branch2_conv1")
    reduction = "features.stage3.unit1.branches"
    yield from _with_bn(f"{reduction}.branch1.conv_list.conv1", "reduction_b_branch1_conv1")
    yield from _with_bn(f"{reduction}.branch1.conv_list.conv2", "reduction_b_branch1_conv2")
    yield from _with_bn(f"{reduction}.branch1.conv_list.conv3", "reduction_b_branch1_conv3")
    yield from _with_bn(f"{reduction}.branch2.conv_list.conv1", "reduction_b_branch2_conv1")
    yield from _with_bn(f"{reduction}.branch2.conv_list.conv2", "reduction_b_branch2_conv2")
    yield from _with_bn(f"{reduction}.branch3.conv_list.conv1", "reduction_b_branch3_conv1")
    yield from _with_bn(f"{reduction}.branch3.conv_list.conv2", "reduction_b_branch3_conv2")
    yield "output.fc", "predictions"


def _with_bn(source: str, ours: str) -> Pairs:
    """A convolution and the normalization after it, which each source keeps in one block."""
    yield f"{source}.conv", ours
    yield f"{source}.bn", f"{ours}_bn"


def _modules() -> Iterator[tuple[str, int, str]]:
    """(stage, number from 1, polynomial) of each of G5's modules."""
    for stage, polynomials in zip("abc", STRUCTURES["polynet-g5"].stages, strict=True):
        for number, polynomial in enumerate(polynomials, 1):
            yield stage, number, str(polynomial)
