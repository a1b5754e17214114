"""A stand-in for the parts of launch and launch_ros that our launch file uses; PyPI has neither.

Signatures and meaning are those of launch_ros from Humble to Rolling. It shows that the file
evaluates and what it then asks for, not that ROS starts it.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml


@dataclass
class LaunchContext:
    launch_configurations: dict[str, str] = field(default_factory=dict)
    shares: dict[str, Path] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


class Substitution:
    def perform(self, context: LaunchContext) -> str:
        raise NotImplementedError


@dataclass
class LaunchConfiguration(Substitution):
    variable_name: str

    def perform(self, context: LaunchContext) -> str:
        return context.launch_configurations[self.variable_name]


@dataclass
class FindPackageShare(Substitution):
    package: str

    def perform(self, context: LaunchContext) -> str:
        return str(context.shares[self.package])


@dataclass
class PathJoinSubstitution(Substitution):
    substitutions: Iterable[Any]

    def perform(self, context: LaunchContext) -> str:
        return str(Path(*(text(part, context) for part in self.substitutions)))


def text(value: Any, context: LaunchContext) -> str:
    """What launch makes of a string, a substitution or a sequence of them."""
    if isinstance(value, str):
        return value
    if isinstance(value, Substitution):
        return value.perform(context)
    return "".join(text(part, context) for part in value)


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: Any = None
    description: str | None = None


@dataclass
class OpaqueFunction:
    function: Callable[[LaunchContext], list[Any]]


@dataclass
class ParameterValue:
    value: Any
    value_type: type | None = None

    def evaluate(self, context: LaunchContext) -> Any:
        written = text(self.value, context)
        found = written if self.value_type is str else yaml.safe_load(written)
        assert self.value_type is None or isinstance(found, self.value_type)
        return found


@dataclass(kw_only=True)
class Node:
    package: str
    executable: str
    name: Any = None
    namespace: Any = None
    parameters: list[Any] = field(default_factory=list)
    remappings: list[tuple[Any, Any]] = field(default_factory=list)
    additional_env: dict[str, str] = field(default_factory=dict)
    output: str = "log"

    def arguments(self, context: LaunchContext) -> dict[str, Any]:
        """What the node's process is given."""
        values: dict[str, Any] = {}
        files = []
        for given in self.parameters:
            if isinstance(given, dict):
                values |= {name: value.evaluate(context) for name, value in given.items()}
            else:
                files.append(Path(text(given, context)))
        return {
            "name": text(self.name, context),
            "namespace": text(self.namespace, context),
            "files": files,
            "values": values,
            "environment": self.additional_env,
            "remappings": {text(old, context): text(new, context) for old, new in self.remappings},
        }


@dataclass
class LaunchDescription:
    entities: list[Any]

    def evaluate(self, context: LaunchContext, **given: str) -> list[Any]:
        """The actions that come of it, with arguments as `ros2 launch FILE name:=value` gives."""
        declared = [one for one in self.entities if isinstance(one, DeclareLaunchArgument)]
        assert given.keys() <= {argument.name for argument in declared}
        for argument in declared:
            value = given.get(argument.name, argument.default_value)
            context.launch_configurations[argument.name] = text(value, context)
        functions = [one for one in self.entities if isinstance(one, OpaqueFunction)]
        return [action for one in functions for action in one.function(context)]


MODULES = {
    "launch": (LaunchContext, LaunchDescription),
    "launch.actions": (DeclareLaunchArgument, OpaqueFunction),
    "launch.substitutions": (LaunchConfiguration, PathJoinSubstitution),
    "launch_ros": (),
    "launch_ros.actions": (Node,),
    "launch_ros.parameter_descriptions": (ParameterValue,),
    "launch_ros.substitutions": (FindPackageShare,),
}


def install(monkeypatch) -> None:
    """Make the modules importable for a test."""
    for name, things in MODULES.items():
        module = ModuleType(name)
        for thing in things:
            setattr(module, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, name, module)
