"""Fusing: rewrites the network of a trained model as a smaller graph that computes the same, for inference."""

import keras
import numpy as np

from polynet_keras.deployment.emit import emit
from polynet_keras.deployment.graph import BatchNorm, Concat, Conv, Graph, Kept, Kernel, Node, Relu, Slice, Sum, read

SHARED = ("duplicate", "affine")

SMALLEST_FACTOR = 2.0**-20
"""A residual path that other layers use too is not folded by a smaller factor, whose inverse would amplify their
errors; a separate multiplication remains."""


def fuse(model: keras.Model, shared: str = "duplicate") -> keras.Model:
    """Returns a new model that computes the same as `model` in inference, in fewer and larger operations.

    * Batch normalizations and residual factors go into the convolutions before them. If the next order uses the path
      too, the factor is undone there, since a ReLU passes a positive factor on: `conv(relu(s·y)) / s`.
    * ReLUs become the convolutions' activations.
    * The projections that only a residual sum uses (in a K-way unit) become one convolution of their concatenated
      inputs, which adds them up.
    * 1×1 convolutions of one tensor become one convolution, whose channels are split afterwards.

    All folding is in float64; the results are rounded to the variables' dtype.

    Args:
        model: a functional model of one input: a model of `PolyNet` or `InceptionResNet`, trained in any way, with or
            without the top, and with a head of common layers. Nested models are flattened.
        shared: how to fold a convolution that several orders of a polynomial share, each with its own normalization:
            `"duplicate"` folds each normalization into a copy (fast; the full G5 grows from 95.4 to 120.6 million
            parameters); `"affine"` keeps one kernel and a frozen batch normalization behind it, which is one
            multiplication and addition per value.

    Returns:
        A functional model of the same inputs, outputs, dtypes and name, without dropout and stochastic depth. It is for
        inference: training it further makes no sense.

    Raises:
        ValueError: `shared` has another value, the model is not functional or has several inputs, or the inference of
            a layer is unknown; no unknown layer is skipped.

    Examples:
        >>> model = InceptionResNet((1, 1, 1), width=0.1, input_shape=(75, 75, 3))
        >>> fused, images = fuse(model), np.ones((1, 75, 75, 3))
        >>> len(fused.layers) < len(model.layers)
        True
        >>> np.allclose(fused.predict_on_batch(images), model.predict_on_batch(images), atol=1e-4)
        True
    """
    if shared not in SHARED:
        raise ValueError(f"shared={shared!r} must be one of {', '.join(SHARED)}")
    graph = read(model)
    _fold_batch_norms(graph)
    _fold_factors(graph)
    _fold_relus(graph)
    _merge_projections(graph, duplicating=shared == "duplicate")
    _merge_siblings(graph, duplicating=shared == "duplicate")
    return emit(graph, model, duplicating=shared == "duplicate")


def _fold_batch_norms(graph: Graph) -> None:
    """Folds batch normalizations into the convolution before, if nothing else uses its output; others stay, frozen."""
    consumers = graph.consumers()
    for node in graph.nodes():
        if not isinstance(node, BatchNorm):
            continue
        conv = node.inputs[0]
        if (
            isinstance(conv, Conv)
            and not conv.relu
            and consumers[conv] == [node]
            and node.layer.axis % 4 == conv.kernel.channel_axis % 4
            and node.layer.dtype_policy == conv.kernel.settings["dtype"]
        ):
            factor, offset = _affine(node.layer)
            conv.scale, conv.offset = conv.scale * factor, conv.offset * factor + offset
            conv.name = node.name.removesuffix("_bn")  # of this application, where the convolution's is of all
            _take_over(graph, consumers, node, conv)
        else:
            kept = Kept(node.name, node.inputs, node.layer)
            _take_over(graph, consumers, node, kept)
            consumers[conv] = [kept if consumer is node else consumer for consumer in consumers[conv]]


def _affine(layer: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Returns factor and offset of each channel in inference, float64."""
    mean, variance = (_values(v) for v in (layer.moving_mean, layer.moving_variance))
    factor = (_values(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    return factor, (_values(layer.beta) if layer.center else 0.0) - mean * factor


def _values(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).astype("float64")


def _take_over(graph: Graph, consumers: dict[Node, list[Node | None]], old: Node, new: Node) -> None:
    """Replaces `old` by `new` in all its consumers."""
    for consumer in consumers[old]:
        if consumer is None:
            graph.outputs = [new if output is old else output for output in graph.outputs]
        else:
            consumer.inputs = [new if source is old else source for source in consumer.inputs]
    consumers[new] = consumers.pop(old)


def _fold_factors(graph: Graph) -> None:
    """Folds the factors of residual sums into the paths' convolutions."""
    for node in graph.nodes():
        if not isinstance(node, Sum):
            continue
        shortcut, *paths = node.inputs
        kept = [(path, factor) for path, factor in zip(paths, node.factors, strict=True) if factor != 0]
        node.inputs, node.factors = [shortcut, *(path for path, _ in kept)], [1.0] * len(kept)
        consumers = graph.consumers()
        for position, (path, factor) in enumerate(kept, 1):
            if factor != 1 and not _multiply(path, factor, node, consumers):
                name = f"{node.name}_factor{position}"
                node.inputs[position] = Kept(name, [path], keras.layers.Rescaling(factor, name=name, dtype=node.dtype))
        if not kept:
            graph.replace(node, shortcut)


def _multiply(path: Node, factor: float, sum_: Sum, consumers: dict[Node, list[Node | None]]) -> bool:
    """Multiplies a path by its factor, and undoes the factor in its other consumers; False if that is impossible."""
    if not isinstance(path, Conv) or path.relu:
        return False
    pending = list(consumers[path])
    pending.remove(sum_)
    if pending and factor < SMALLEST_FACTOR:
        return False
    others: list[Conv] = []
    while pending:
        consumer = pending.pop()
        if isinstance(consumer, Relu):
            pending += consumers[consumer]
        elif isinstance(consumer, Conv):
            others.append(consumer)
        else:
            return False
    path.scale, path.offset = path.scale * factor, path.offset * factor
    for conv in others:
        conv.scale = conv.scale / factor
    return True


def _fold_relus(graph: Graph) -> None:
    """Folds ReLUs into the convolution before, if nothing else uses its output."""
    consumers = graph.consumers()
    for node in graph.nodes():
        if isinstance(node, Relu):
            (conv,) = node.inputs
            if not isinstance(conv, Conv) or node.dtype != conv.kernel.settings["dtype"]:
                continue
            if conv.relu or consumers[conv] == [node]:
                conv.relu = True
                _take_over(graph, consumers, node, conv)


def _merge_projections(graph: Graph, duplicating: bool) -> None:
    """Merges the 1×1 convolutions that only a sum uses: `P(f) + Q(g)` is one convolution of `[f, g]`."""
    consumers, uses = graph.consumers(), graph.uses()
    for node in graph.nodes():
        if not isinstance(node, Sum) or node.broadcasts:
            continue
        projections = [
            path
            for path in node.inputs
            if isinstance(path, Conv)
            and not path.relu
            and path.kernel.is_pointwise
            and consumers[path] == [node]
            and (duplicating or uses[path.kernel] == 1)
        ]
        if len({_format(projection.kernel) for projection in projections}) != 1 or len(projections) < 2:
            continue
        first = projections[0].kernel
        sources = [source for projection in projections for source in _parts(projection, consumers)]
        concat = Concat(f"{node.name}_concat", sources, first.channel_axis, first.settings["dtype"])
        values = np.concatenate([projection.folded_kernel() for projection in projections], axis=2)
        kernel = Kernel(f"{node.name}_projection", values, first.settings)
        offset = np.sum([projection.offset for projection in projections], axis=0)
        merged = Conv(kernel.name, [concat], kernel, np.ones(len(offset)), offset)
        node.inputs = [*(path for path in node.inputs if path not in projections), merged]
        node.factors = [1.0] * (len(node.inputs) - 1)


def _format(kernel: Kernel) -> tuple[str, str]:
    """Returns the properties that convolutions must share to be merged."""
    return kernel.settings["dtype"].name, kernel.settings["data_format"]


def _parts(projection: Conv, consumers: dict[Node, list[Node | None]]) -> list[Node]:
    """Returns the tensors whose concatenation is a projection's input."""
    (source,) = projection.inputs
    if (
        isinstance(source, Concat)
        and consumers[source] == [projection]
        and source.axis % 4 == projection.kernel.channel_axis % 4
    ):
        return source.inputs
    return [source]


def _merge_siblings(graph: Graph, duplicating: bool) -> None:
    """Merges the 1×1 convolutions of one tensor."""
    consumers = graph.consumers()
    applied_to: dict[Kernel, list[Node]] = {}
    for node in graph.nodes():
        if isinstance(node, Conv):
            applied_to.setdefault(node.kernel, []).extend(node.inputs)
    merged_kernels: dict[tuple[Kernel, ...], Kernel] = {}
    slices: dict[Node, Node] = {}
    for node in graph.nodes():
        node = slices.get(node, node)
        groups: dict[tuple, list[Conv]] = {}
        for consumer in consumers[node]:
            if isinstance(consumer, Conv) and consumer.kernel.is_pointwise:
                # Shared kernels are merged only with kernels that are applied in all the same places.
                together = () if duplicating else tuple(applied_to[consumer.kernel])
                key = (consumer.relu, _format(consumer.kernel), together)
                groups.setdefault(key, []).append(consumer)
        for siblings in groups.values():
            if len(siblings) > 1:
                slices.update(_merged(graph, node, siblings, consumers, merged_kernels))


def _merged(
    graph: Graph,
    source: Node,
    siblings: list[Conv],
    consumers: dict[Node, list[Node | None]],
    merged_kernels: dict[tuple[Kernel, ...], Kernel],
) -> dict[Node, Node]:
    """Merges the convolutions of a tensor; returns the slice that replaces each."""
    kernels = tuple(sibling.kernel for sibling in siblings)
    if kernels not in merged_kernels:
        values = np.concatenate([kernel.values for kernel in kernels], axis=3)
        merged_kernels[kernels] = Kernel(f"{kernels[0].name}_merged", values, kernels[0].settings)
    scale, offset = (np.concatenate([getattr(sibling, name) for sibling in siblings]) for name in ("scale", "offset"))
    merged = Conv(f"{siblings[0].name}_merged", [source], merged_kernels[kernels], scale, offset, siblings[0].relu)
    slices: dict[Node, Node] = {}
    start = 0
    for sibling in siblings:
        stop = start + len(sibling.offset)
        slices[sibling] = Slice(sibling.name, [merged], start, stop)
        _take_over(graph, consumers, sibling, slices[sibling])
        start = stop
    return slices
