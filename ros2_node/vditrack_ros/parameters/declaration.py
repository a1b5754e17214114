"""Declaration of the parameters in ROS, and checks when they are set."""

from difflib import get_close_matches
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node

from vditrack.errors import InputError
from vditrack_ros.parameters.definition import Parameter
from vditrack_ros.parameters.settings import Settings, build_settings
from vditrack_ros.parameters.table import PARAMETERS

_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
_RCLPY_NAMES = ("use_sim_time", "start_type_description_service", "qos_overrides")
"""Names, or first parts of names, of the parameters that rclpy declares itself."""
_CONFIGURED = "it is read when the node is configured: deactivate and clean up first, then set it"
_AT_START = "it is read at start only: set it on the command line or in the launch file"


class DeclaredParameters:
    """The node's parameters, declared with the values given at start.

    An invalid value at start does not end the process. The default is declared instead, and
    `read_settings` raises until the parameter is set to an allowed value.
    """

    def __init__(self, node: Node) -> None:
        """Declare all parameters.

        Args:
            node: created with `automatically_declare_parameters_from_overrides`.

        """
        self._node = node
        self._problems: dict[str, str] = {}
        given = {name: found.value for name, found in node.get_parameters_by_prefix("").items()}
        for parameter in PARAMETERS:
            value = parameter.default
            if parameter.name in given:
                node.undeclare_parameter(parameter.name)
                value = self._validate_initial(parameter, given[parameter.name])
            node.declare_parameter(
                parameter.name, value, descriptor=build_descriptor(parameter), ignore_override=True
            )
        for name in sorted(given.keys() - _BY_NAME.keys()):
            self._warn_of_unknown(name)

    def read_settings(self) -> Settings:
        """Return the current values as settings.

        Raises:
            InputError: a value given at start was invalid and not set since, or values contradict
                each other.

        """
        if self._problems:
            raise InputError(" ".join(self._problems.values()))
        return build_settings(self._values())

    def check_changes(self, changes: list[Any], current: Settings | None) -> Settings | None:
        """Check parameters that are about to be set; return the settings that result.

        Args:
            changes: `rclpy.parameter.Parameter` with the new values.
            current: the settings in use; None while the node is not configured.

        Returns:
            The new settings; None while the node is not configured.

        Raises:
            InputError: a value is not allowed, or cannot be set in this state.

        """
        values = self._values()
        for change in changes:
            if change.name not in _BY_NAME:
                continue
            parameter, before = _BY_NAME[change.name], values[change.name]
            values[change.name] = parameter.validate(change.value)
            if values[change.name] == before:
                # For example when a file with all parameters is loaded again.
                continue
            if parameter.name == "autostart":
                raise InputError(f"autostart cannot be set now; {_AT_START}.")
            if current is not None and not parameter.live:
                raise InputError(f"{parameter.name} cannot be set now; {_CONFIGURED}.")
        settings = None if current is None else build_settings(values)
        for change in changes:
            self._problems.pop(change.name, None)
        return settings

    def _values(self) -> dict[str, Any]:
        return {name: self._node.get_parameter(name).value for name in _BY_NAME}

    def _validate_initial(self, parameter: Parameter, value: object) -> Any:  # noqa: ANN401
        """Return a value given at start, or the default if it is invalid."""
        try:
            return parameter.validate(value)
        except InputError as error:
            self._problems[parameter.name] = str(error)
            return parameter.default

    def _warn_of_unknown(self, name: str) -> None:
        if name.split(".", maxsplit=1)[0] in _RCLPY_NAMES:
            return
        similar = get_close_matches(name, _BY_NAME, 1)
        hint = f" Did you mean {similar[0]}?" if similar else ""
        self._node.get_logger().warning(f"There is no parameter {name}; it is ignored.{hint}")
        self._node.undeclare_parameter(name)


def build_descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Return the descriptor of a parameter, which `ros2 param describe` shows."""
    descriptor = ParameterDescriptor(
        description=parameter.description,
        additional_constraints=_constraints(parameter),
        # rclpy names a wrong type by number only; `Parameter.validate` says what is allowed.
        dynamic_typing=True,
    )
    if parameter.range is not None:
        low, high = parameter.range
        if isinstance(parameter.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=0)
            ]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor


def _constraints(parameter: Parameter) -> str:
    allowed = f"{parameter.allowed[0].upper()}{parameter.allowed[1:]}."
    if parameter.live:
        return f"{allowed} May be set at any time."
    if parameter.name == "autostart":
        return f"{allowed} Cannot be set later: {_AT_START}."
    return f"{allowed} May be set while the node is unconfigured: {_CONFIGURED}."


def build_set_result(refusal: InputError | None) -> SetParametersResult:
    """Return the answer to a request to set parameters.

    Args:
        refusal: why the request is refused; None if it is accepted.

    """
    return SetParametersResult(
        successful=refusal is None, reason="" if refusal is None else str(refusal)
    )
