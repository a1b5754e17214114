"""The parameters as the ROS node declares them, checks them and changes them."""

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
from vditrack_ros.parameters import PARAMETERS, Parameter, Settings, checked_settings

_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
_OTHERS = ("use_sim_time", "start_type_description_service", "qos_overrides")
"""Names, or their first parts, that rclpy declares by itself."""
_FIXED = "it is read when the node is configured: deactivate and clean up first, then set it"
_AT_START = "it is read at start only: set it on the command line or in the launch file"


class DeclaredParameters:
    """The node's parameters, declared with what was given at start.

    What is wrong at start does not end the process: the default is declared in its place, and
    `settings` refuses until it was set right.
    """

    def __init__(self, node: Node) -> None:
        """Declare all on a node that has declared what it was given by itself."""
        self._node = node
        self._problems: dict[str, str] = {}
        given = {name: found.value for name, found in node.get_parameters_by_prefix("").items()}
        for parameter in PARAMETERS:
            value = parameter.default
            if parameter.name in given:
                node.undeclare_parameter(parameter.name)
                value = self._value_given(parameter, given[parameter.name])
            node.declare_parameter(
                parameter.name, value, descriptor(parameter), ignore_override=True
            )
        for name in sorted(given.keys() - _BY_NAME.keys()):
            self._warn_of_unknown(name)

    def settings(self) -> Settings:
        """All values, checked together.

        Raises:
            InputError: a value given at start was wrong and not set since, or values do not fit
                each other.

        """
        if self._problems:
            raise InputError(" ".join(self._problems.values()))
        return checked_settings(self._values())

    def change(self, changed: list[Any], current: Settings | None) -> Settings | None:
        """Check parameters that are about to be set.

        Args:
            changed: of `rclpy.parameter.Parameter`.
            current: the settings in use; None while the node is not configured.

        Returns:
            The settings to use from now on; None while the node is not configured.

        Raises:
            InputError: a value is wrong, or cannot change now.

        """
        values = self._values()
        for one in changed:
            if one.name not in _BY_NAME:
                continue
            parameter, before = _BY_NAME[one.name], values[one.name]
            values[one.name] = parameter.checked(one.value)
            if values[one.name] == before:
                # As when a file with all parameters is loaded again.
                continue
            if parameter.name == "autostart":
                raise InputError(f"autostart cannot be set now; {_AT_START}.")
            if current is not None and not parameter.live:
                raise InputError(f"{parameter.name} cannot be set now; {_FIXED}.")
        settings = None if current is None else checked_settings(values)
        for one in changed:
            self._problems.pop(one.name, None)
        return settings

    def _values(self) -> dict[str, Any]:
        return {name: self._node.get_parameter(name).value for name in _BY_NAME}

    def _value_given(self, parameter: Parameter, value: object) -> Any:  # noqa: ANN401
        try:
            return parameter.checked(value)
        except InputError as error:
            self._problems[parameter.name] = str(error)
            return parameter.default

    def _warn_of_unknown(self, name: str) -> None:
        if name.split(".", maxsplit=1)[0] in _OTHERS:
            return
        near = get_close_matches(name, _BY_NAME, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        self._node.get_logger().warning(f"There is no parameter {name}; it is ignored.{hint}")
        self._node.undeclare_parameter(name)


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Describe a parameter as `ros2 param describe` shows it."""
    told = ParameterDescriptor(
        description=parameter.description,
        additional_constraints=_constraints(parameter),
        # rclpy names a wrong type by number only; `Parameter.checked` says what is allowed.
        dynamic_typing=True,
    )
    if parameter.range is not None:
        low, high = parameter.range
        if isinstance(parameter.default, int):
            told.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
        else:
            told.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return told


def _constraints(parameter: Parameter) -> str:
    allowed = f"{parameter.allowed[0].upper()}{parameter.allowed[1:]}."
    if parameter.live:
        return f"{allowed} May be set at any time."
    if parameter.name == "autostart":
        return f"{allowed} Not to be set later: {_AT_START}."
    return f"{allowed} To be set while unconfigured: {_FIXED}."


def answer(refusal: InputError | None) -> SetParametersResult:
    """Answer a request to set parameters."""
    return SetParametersResult(
        successful=refusal is None, reason="" if refusal is None else str(refusal)
    )
