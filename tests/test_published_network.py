"""G5 against a published implementation: pytorchcv's PolyNet, same random weights, same logits."""

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet, list_structures
from tests.reference import randomize

torch = pytest.importorskip("torch", reason="the published network is PyTorch's (extra `parity`)")
pytestmark = pytest.mark.slow


def modules_of_unit(unit, stage, prefix, number, pairs):
    """Appends (published module, our layer name) for the one or two modules of a published unit."""
    if unit.poly is not None:
        name = f"{prefix}_{number:02d}"
        number += 1
        branches = unit.poly.pre_block.branches
        for b, branch in enumerate([branches.branch1.conv_list, [branches.branch2]], 1):
            for step, shared in enumerate(branch, 1):
                pairs.append((shared.conv, f"{name}_f_branch{b}_conv{step}"))
                for order, bn in zip(("f", "ff", "fff"), shared.bns, strict=True):
                    pairs.append((bn, f"{name}_{order}_branch{b}_conv{step}_bn"))
        for order, projection in zip(("f", "ff", "fff"), unit.poly.res_blocks, strict=True):
            pairs.append((projection.conv, f"{name}_{order}_projection"))
            pairs.append((projection.bn, f"{name}_{order}_projection_bn"))
    name = f"{prefix}_{number:02d}"
    for letter, block in zip("fg", unit.twoway.res_blocks, strict=True):
        pairs += branches_of(block, f"{name}_{letter}")
        pairs += [(block.conv.conv, f"{name}_{letter}_projection"), (block.conv.bn, f"{name}_{letter}_projection_bn")]
    return number + 1


def branches_of(block, name):
    pairs = []
    for b, branch in enumerate(block.branches, 1):
        if hasattr(branch, "pool"):
            continue
        for step, conv in enumerate(branch.conv_list if hasattr(branch, "conv_list") else [branch.conv], 1):
            pairs.append((conv.conv, f"{name}_branch{b}_conv{step}"))
            pairs.append((conv.bn, f"{name}_branch{b}_conv{step}_bn"))
    return pairs


def published_modules(net):
    init = net.features.init_block
    pairs = []
    for step, conv in enumerate([init.conv1, init.conv2, init.conv3], 1):
        pairs += [(conv.conv, f"stem_conv{step}"), (conv.bn, f"stem_conv{step}_bn")]
    for number, block in enumerate([init.block1, init.block2, init.block3], 1):
        pairs += branches_of(block, f"stem_mixed{number}")
    for stage, units in zip("abc", [net.features.stage1, net.features.stage2, net.features.stage3], strict=True):
        number = 1
        for unit in units:
            if hasattr(unit, "twoway"):
                number = modules_of_unit(unit, stage, f"stage_{stage}", number, pairs)
            else:
                pairs += branches_of(unit, f"reduction_{chr(ord(stage) - 1)}")
    return [*pairs, (net.output.fc, "predictions")]


def copy_weights(net, model):
    """Ours into the published network's; every parameter on both sides is used once."""
    copied = set()
    for module, name in published_modules(net):
        layer = model.get_layer(name)
        weights = [torch.from_numpy(np.array(keras.ops.convert_to_numpy(w))) for w in layer.weights]
        if isinstance(module, torch.nn.Conv2d):
            pairs = [(module.weight, weights[0].permute(3, 2, 0, 1))]
        elif isinstance(module, torch.nn.Linear):
            pairs = [(module.weight, weights[0].T), (module.bias, weights[1])]
        else:
            assert module.eps == layer.epsilon
            assert module.momentum == pytest.approx(1 - layer.momentum)
            targets = (module.weight, module.bias, module.running_mean, module.running_var)
            pairs = list(zip(targets, weights, strict=True))
        for target, value in pairs:
            assert target.shape == value.shape
            target.data.copy_(value)
            copied.add(target.data_ptr())
        assert layer.name not in copied
        copied.add(layer.name)
    state = [value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")]
    assert {value.data_ptr() for value in state} <= copied
    assert {layer.name for layer in model.layers if layer.trainable_variables} <= copied


def test_g5_equals_the_published_implementation():
    from pytorchcv.models.polynet import polynet

    model = PolyNet(weights=None, classifier_activation=None)
    net = polynet().eval()
    for seed in (0, 1):
        randomize(model, seed)
        with torch.no_grad():
            copy_weights(net, model)
            images = np.random.default_rng(seed).normal(size=(1, 331, 331, 3)).astype("float32")
            expected = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        found = keras.ops.convert_to_numpy(model.predict(images, verbose=0))
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
        assert expected.std() > 0.1


def test_counted_macs_are_those_of_the_published_implementation():
    from pytorchcv.models.polynet import polynet

    net = polynet().eval()
    macs = []

    def count(module, _, output):
        macs.append(module.weight[0].numel() * output.numel())

    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, 3, 331, 331))
    assert sum(macs) == next(card.macs for card in list_structures() if card.name == "polynet-g5")
