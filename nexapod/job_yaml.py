"""YAML the way a job file needs it: no aliases, no repeated keys, and 1.2e12 is a number.

Knows PyYAML. Must never know what the keys mean.
"""

import re
from typing import Any

import yaml


class _JobLoader(yaml.SafeLoader):
    """The safe loader without what makes documents explode or lie."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"the key {name!r} stands twice in one table")
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1.2e12 for text because the exponent has no sign; people and YAML 1.2 take it for a number.
_JobLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][0-9]+$"), list("-+0123456789")
)


def load_yaml(text: str) -> Any:
    """The document in `text`.

    Raises:
        yaml.YAMLError: not one plain document.
    """
    return yaml.load(text, Loader=_JobLoader)
