"""What `serve` is refused for before anything is loaded. None of it needs Keras or what a service is made of."""

import dataclasses
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from polynet_keras.basics.extras import PACKAGES, require_extras
from polynet_keras.basics.names import shell_quoted, shown
from polynet_keras.deployment.artifact import ExportCard, opened_export
from polynet_keras.deployment.formats import FORMATS
from polynet_keras.pretrained.model_source import Kind, find_model
from polynet_keras.pretrained.registry import list_published

MAX_NAME = 500
"""Letters."""


def check_served(model_dir: str | os.PathLike) -> tuple[ExportCard, Path]:
    """The card of an export that can be served, and the file by which its artifact is loaded.

    Raises:
        ValueError: there is no export, or packages are missing, all of which the message names.
    """
    named = os.fspath(model_dir)
    if not os.path.lexists(named) and named not in list_published():
        command = shell_quoted(["polynet", "export", f"--output={named}"])
        raise ValueError(f"{shown(named)} is not there; this writes it, of the newest run: {command}")
    source = find_model(model_dir, "model_dir")
    if source.kind is not Kind.EXPORT:
        new = f"{source.path.absolute().name.removesuffix('.keras')}-export"
        command = shell_quoted(["polynet", "export", f"--model={named}", f"--output={new}"])
        raise ValueError(f"{shown(named)} is {source.kind} and no export; export it first: {command}")
    card, path = opened_export(source.path)
    require_extras({"serve": PACKAGES["serve"], "deploy": FORMATS[card.format].runtime})
    return card, path


def renamed(card: ExportCard, name: str) -> ExportCard:
    """The card with another name; raises ValueError for one that no answer, metric or line can have."""
    if not (name.isprintable() and 1 <= len(name) <= MAX_NAME):
        raise ValueError(f"name='{shown(name, MAX_NAME)}' must be 1 to {MAX_NAME} letters that can be printed")
    return dataclasses.replace(card, name=name)


def check_proxies(addresses: Sequence[str]) -> None:
    """Raises a `ValueError` for what is no address; uvicorn takes it for a name, which then none has."""
    for address in addresses:
        if address == "*" and len(addresses) == 1:
            continue
        try:
            ipaddress.ip_network(address)
        except ValueError as error:
            raise ValueError(
                f"forwarded_allow_ips={address!r} is no IP address or network ({error}); * alone is for any"
            ) from None
