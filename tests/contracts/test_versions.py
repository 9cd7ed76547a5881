"""What `setup.py` admits of the packages whose private parts are used."""

import importlib.metadata
from collections import defaultdict

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.contracts.names import NAMES

PACKAGES = sorted({private.package for private in NAMES.values()})
ABOVE_ALL = Version("9999")


def requirements() -> dict[str, list[Requirement]]:
    """By package, as the installed `polynet_keras` says it."""
    found = defaultdict(list)
    for text in importlib.metadata.requires("polynet_keras") or ():
        requirement = Requirement(text)
        found[requirement.name].append(requirement)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_whose_private_parts_are_used_has_an_upper_bound(package):
    found = requirements()[package]
    assert found
    for requirement in found:
        assert not requirement.specifier.contains(ABOVE_ALL), f"{requirement} admits versions that nobody has tested"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_installed_version_is_admitted(package):
    """So that the contracts are tested with a version of those that users get."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        assert all("extra" in str(requirement.marker) for requirement in requirements()[package])
        return
    # The extra `model-garden` has another environment than the tests, and asks for less.
    admitted = [requirement.specifier.contains(version) for requirement in requirements()[package]]
    assert any(admitted), f"{package} {version} is not one of {requirements()[package]}; or install this package anew"
