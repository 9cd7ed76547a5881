import pytest

from polynet_keras.data.augmentation import Augmentation


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": "centre"}, "crop='centre' must be one of"),
        ({"crop_min_area": 0.5}, "crop_min_area=0.5 is for crop='random_resized', not 'random'"),
        ({"crop": "random_resized", "crop_min_area": 0}, "crop_min_area=0 must be a finite number > 0 and ≤ 1"),
        ({"policy": "auto"}, "policy='auto' must be one of"),
        ({"magnitude": 5}, "magnitude=5 is a setting of policy=rand_augment_increasing, and no policy is chosen"),
        ({"policy": "rand_augment", "magnitude_std": 1}, "and not of policy=rand_augment"),
        ({"policy": "rand_augment_increasing", "magnitude": 11}, "magnitude=11 must be a finite number ≥ 0 and ≤ 10"),
        ({"policy": "rand_augment_increasing", "magnitude_std": -1}, "magnitude_std=-1 must be a finite number ≥ 0"),
        ({"repeats": 0}, "repeats=0 must be an integer of at least 1"),
        ({"flip": 1}, "flip=1 must be True or False"),
        ({"color_jitter": 1.5}, "color_jitter=1.5 must be a finite number ≥ 0 and ≤ 1"),
        ({"erasing": -0.1}, "erasing=-0.1 must be a finite number ≥ 0 and ≤ 1"),
        ({"mixup": float("inf")}, "mixup=inf must be a finite number ≥ 0"),
        ({"mixup": float("nan")}, "mixup=nan must be a finite number ≥ 0"),
        ({"cutmix": "1"}, "cutmix='1' must be a finite number"),
    ],
)
def test_values_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**arguments)
