"""YAML the way a job file needs it: no aliases, tags or repeated keys, and 1.2e12 is a number.

Knows PyYAML. Must never know what the keys mean.
"""

import re
from typing import Any

import yaml

DEPTH_MAX = 32  # brackets within brackets: PyYAML looks at all of them for every word
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _JobLoader(yaml.SafeLoader):
    """The safe loader without what makes documents explode or lie."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= DEPTH_MAX:
            raise yaml.YAMLError("is nested too deep")
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:  # !!int of an empty text is an IndexError, and so on
            raise yaml.YAMLError("tags (!name) are not allowed")
        return super().compose_node(parent, index)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        # YAML 1.1 takes 1:30 for ninety, and a thousand such parts for a number without end; it is text.
        return "tag:yaml.org,2002:str" if tag in _NUMBERS and ":" in value else tag

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"the key {key.value[:80]!r} stands twice in one table")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# A date stays the text it was written as: as in JSON, and as every key of a job file wants it.
_JobLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 takes 1.2e12 for text because the exponent has no sign, and 1e-6 because it has no point; people and YAML 1.2
# take them for numbers.
_JobLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load_yaml(text: str) -> Any:
    """The document in `text`.

    Raises:
        yaml.YAMLError, ValueError: not one plain document.
        RecursionError: nested too deep.
    """
    return yaml.load(text, Loader=_JobLoader)
