"""A stand-in for the parts of launch and launch_ros that our launch file uses; PyPI has neither.

Signatures and meaning are those of launch_ros from Humble to Rolling. It shows that the file
evaluates and what it then asks for, not that ROS starts it.
"""

import runpy
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass
class LaunchContext:
    launch_configurations: dict[str, str] = field(default_factory=dict)
    shares: dict[str, Path] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    remaps: list[tuple[str, str]] = field(default_factory=list)


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
class Shutdown:
    pass


@dataclass(kw_only=True)
class ExecuteProcess:
    cmd: list[Any]
    on_exit: Any = None
    output: str = "log"


@dataclass
class PythonLaunchDescriptionSource:
    path: PathJoinSubstitution


@dataclass
class IncludeLaunchDescription:
    source: PythonLaunchDescriptionSource
    launch_arguments: Iterable[tuple[Any, Any]] = ()


@dataclass
class SetRemap:
    src: Any
    dst: Any


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
                values |= given
            else:
                files.append(Path(text(given, context)))
        return {
            "name": text(self.name, context),
            "namespace": text(self.namespace, context),
            "files": files,
            "values": values,
            "environment": self.additional_env,
            "remappings": dict(context.remaps)
            | {text(old, context): text(new, context) for old, new in self.remappings},
        }


@dataclass
class Included:
    """A launch file of a package that is not there."""

    path: Path
    arguments: dict[str, str]


@dataclass
class LaunchDescription:
    entities: list[Any]

    def evaluate(self, context: LaunchContext, **given: str) -> list[Any]:
        """The actions that come of it, with arguments as `ros2 launch FILE name:=value` gives.

        As in launch, arguments are known to included files too, and included files change those of
        the files above them.
        """
        context.launch_configurations |= given
        actions: list[Any] = []
        for one in self.entities:
            actions += self._perform(one, context)
        return actions

    def _perform(self, one: Any, context: LaunchContext) -> list[Any]:
        known = context.launch_configurations
        if isinstance(one, DeclareLaunchArgument):
            if one.name not in known:
                assert one.default_value is not None, f"{one.name} must be given"
                known[one.name] = text(one.default_value, context)
            return []
        if isinstance(one, OpaqueFunction):
            return one.function(context)
        if isinstance(one, SetRemap):
            context.remaps.append((text(one.src, context), text(one.dst, context)))
            return []
        if isinstance(one, IncludeLaunchDescription):
            path = Path(text(one.source.path, context))
            arguments = {name: text(value, context) for name, value in one.launch_arguments}
            if not path.is_file():
                return [Included(path, arguments)]
            return read_launch_file(path).evaluate(context, **arguments)
        return [one]

    @property
    def arguments(self) -> dict[str, DeclareLaunchArgument]:
        """Declared arguments by name."""
        found = [one for one in self.entities if isinstance(one, DeclareLaunchArgument)]
        assert len({one.name for one in found}) == len(found)
        return {one.name: one for one in found}


def read_launch_file(path: Path) -> LaunchDescription:
    return runpy.run_path(str(path))["generate_launch_description"]()


MODULES = {
    "launch": (LaunchContext, LaunchDescription),
    "launch.actions": (
        DeclareLaunchArgument,
        ExecuteProcess,
        IncludeLaunchDescription,
        OpaqueFunction,
        Shutdown,
    ),
    "launch.launch_description_sources": (PythonLaunchDescriptionSource,),
    "launch.substitutions": (LaunchConfiguration, PathJoinSubstitution),
    "launch_ros": (),
    "launch_ros.actions": (Node, SetRemap),
    "launch_ros.substitutions": (FindPackageShare,),
}


def install(monkeypatch) -> None:
    """Make the modules importable for a test."""
    for name, things in MODULES.items():
        module = ModuleType(name)
        for thing in things:
            setattr(module, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, name, module)
