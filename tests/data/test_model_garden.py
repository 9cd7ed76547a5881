import sys

import pytest

from polynet_keras.data.augmentation import POLICIES, Augmentation, Distortion


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy.startswith("model_garden")])
def test_without_the_extra_it_says_what_to_install(monkeypatch, policy):
    monkeypatch.setitem(sys.modules, "official", None)
    with pytest.raises(ValueError, match=r"tf-models-official.*pip install 'polynet_keras\[model-garden\]'$"):
        Distortion(Augmentation(policy=policy), 3)
