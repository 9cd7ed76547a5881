"""The checks of `serve` before anything is loaded. They need neither Keras nor the packages of a service."""

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
    """Returns the card of an export that can be served, and the file from which its artifact is loaded.

    Raises:
        ValueError: there is no export, or packages are missing; the message names all of them.
    """
    named = os.fspath(model_dir)
    if not os.path.lexists(named) and named not in list_published():
        command = shell_quoted(["polynet", "export", f"--output={named}"])
        raise ValueError(f"{shown(named)} does not exist; this exports the newest run to it: {command}")
    source = find_model(model_dir, "model_dir")
    if source.kind is not Kind.EXPORT:
        new = f"{source.path.absolute().name.removesuffix('.keras')}-export"
        command = shell_quoted(["polynet", "export", f"--model={named}", f"--output={new}"])
        raise ValueError(f"{shown(named)} is {source.kind}, not an export; export it first: {command}")
    card, path = opened_export(source.path)
    require_extras({"serve": PACKAGES["serve"], "deploy": FORMATS[card.format].runtime})
    return card, path


def renamed(card: ExportCard, name: str) -> ExportCard:
    """Returns the card with another name. Raises a ValueError if an answer, metric or line cannot have this name."""
    if not (name.isprintable() and 1 <= len(name) <= MAX_NAME):
        raise ValueError(f"name='{shown(name, MAX_NAME)}' must be 1 to {MAX_NAME} printable characters")
    return dataclasses.replace(card, name=name)


def check_proxies(addresses: Sequence[str]) -> None:
    """Raises a `ValueError` for an invalid address. Uvicorn would take it for a name that no proxy has."""
    for address in addresses:
        if address == "*" and len(addresses) == 1:
            continue
        try:
            ipaddress.ip_network(address)
        except ValueError as error:
            raise ValueError(
                f"forwarded_allow_ips={address!r} is not an IP address or network ({error}); use * alone for any"
            ) from None
