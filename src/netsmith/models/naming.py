"""Names of blocks and layers in a layout, read back into the places where a network holds them."""

import re

from netsmith.errors import InputError


def read_name(name: str, template: str) -> tuple[str, ...]:
    """The numbers in a name, as text.

    Args:
        name: of a block or layer, such as "layer2.0".
        template: how such names look, with {} for each number, such as "layer{}.{}".

    Raises:
        InputError: the name looks otherwise.
    """
    pattern = re.escape(template).replace(r"\{\}", "([0-9]+)")
    found = re.fullmatch(pattern, name)
    if found is None:
        raise InputError(f"{name!r} is no name of this network's layers; they are called {template.replace('{}', 'N')}")
    return found.groups()
