"""Services of the node: requests as plain data, whatever the type of the service.

If the package vditrack_msgs is installed, the services have its types. Otherwise they have the type
rcl_interfaces/srv/SetParametersAtomically, which every installation has: one parameter for each
field of the request; the answer is JSON in `result.reason`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from rcl_interfaces.srv import SetParametersAtomically
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.service import Service

from vditrack.errors import InputError
from vditrack.ros_messages.stamps import to_nanoseconds

try:
    from vditrack_msgs.srv import AddObjects, AddPoints, Remove

    HAS_VDITRACK_MSGS = True
except ImportError:
    HAS_VDITRACK_MSGS = False

Fields = Mapping[str, Any]
"""Values of a request by the names of its fields; `stamp` in nanoseconds."""
Request = TypeVar("Request")


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    success: bool
    """Whether everything was done."""
    message: str
    """What was done, or why not."""
    ids: list[int] = field(default_factory=list)
    """Identifier of each point or object of the request, in its order."""
    reasons: list[str] = field(default_factory=list)
    """Why each of them was refused; empty if it was not."""


class Kind(Enum):
    """What a request of `~/remove` removes."""

    POINT = 0
    OBJECT = 1


@dataclass(frozen=True)
class RemoveRequest:
    """A request of `~/remove`."""

    kind: Kind
    id: int
    """Identifier of the point, or index of the object."""


_NATIVE: dict[str, Any] = (
    {"add_points": AddPoints, "add_objects": AddObjects, "remove": Remove}
    if HAS_VDITRACK_MSGS
    else {}
)
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "add_points": {"stamp": (int,), "x": (float, int), "y": (float, int)},
    "add_objects": {
        "stamp": (int,),
        "mask": (bytes, int),
        "boxes": (float, int),
        "box_ids": (int,),
    },
    "remove": {"kind": (int,), "id": (int,)},
}
"""Fields of each service, and the types of their values or of the items of their values."""


def create_request_service(
    node: Node,
    prefix: str,
    name: str,
    read: Callable[[Fields], Request],
    handle: Callable[[Request], Answer | Awaitable[Answer]],
) -> Service:
    """Create a service for requests of points or objects.

    Args:
        node: owns the service.
        prefix: of its name, such as "~/".
        name: "add_points", "add_objects" or "remove".
        read: makes a request of the values of its fields; raises `InputError` if they are invalid.
            Fields that a parameter request leaves out are absent.
        handle: carries out the request. It may return an awaitable, such as a future of rclpy, if
            the answer has to wait; meanwhile the node goes on.

    """

    async def respond(fields: Callable[[], Fields]) -> Answer:
        try:
            answer = handle(read(fields()))
            return answer if isinstance(answer, Answer) else await answer
        except InputError as error:
            return Answer(False, str(error))

    async def on_native(request: Any, response: Any) -> Any:  # noqa: ANN401
        answer = await respond(lambda: _read_native(request))
        response.success, response.message = answer.success, answer.message
        if hasattr(response, "ids"):
            response.ids, response.reasons = answer.ids, answer.reasons
        return response

    async def on_parameters(request: Any, response: Any) -> Any:  # noqa: ANN401
        answer = await respond(lambda: _read_parameters(request.parameters, name))
        response.result.successful = answer.success
        text = {"message": answer.message, "ids": answer.ids, "reasons": answer.reasons}
        response.result.reason = json.dumps(text)
        return response

    native = _NATIVE.get(name)
    # A call that waits must not hold up the node's other callbacks, as it would in their group.
    return node.create_service(
        native or SetParametersAtomically,
        f"{prefix}{name}",
        on_native if native else on_parameters,
        callback_group=ReentrantCallbackGroup(),
    )


def read_removal(fields: Fields) -> RemoveRequest:
    """Return a request of `~/remove` of the values of its fields.

    Args:
        fields: `kind` and `id`.

    Raises:
        InputError: a field is missing, or there is no such kind.

    """
    if fields.keys() < {"kind", "id"}:
        raise InputError("~/remove needs the fields kind and id.")
    kinds = {kind.value: kind for kind in Kind}
    kind = kinds.get(fields["kind"])
    if kind is None:
        listed = ", ".join(f"{kind.value} ({kind.name})" for kind in Kind)
        raise InputError(f"~/remove has the kind {fields['kind']}. Give one of {listed}.")
    return RemoveRequest(kind, int(fields["id"]))


def _read_native(request: Any) -> Fields:  # noqa: ANN401
    names = request.get_fields_and_field_types()
    fields = {name: getattr(request, name) for name in names}
    if "stamp" in fields:
        fields["stamp"] = to_nanoseconds(fields["stamp"])
    return fields


def _read_parameters(parameters: Any, service: str) -> Fields:  # noqa: ANN401
    """Return the values of parameters, checked against the fields of a service."""
    known, fields = _FIELDS[service], dict[str, Any]()
    for parameter in parameters:
        if parameter.name not in known:
            raise InputError(
                f"~/{service} has no field {parameter.name!r}. Give {', '.join(known)}."
            )
        value = _read_value(parameter.value)
        items = value if hasattr(value, "__len__") and not isinstance(value, str) else [value]
        types = known[parameter.name]
        if not all(isinstance(item, types) and not isinstance(item, bool) for item in items):
            kinds = " or ".join(kind.__name__ for kind in types)
            raise InputError(
                f"~/{service}: the field {parameter.name} is {value!r:.40}; give {kinds}."
            )
        fields[parameter.name] = value
    return fields


def _read_value(message: Any) -> Any:  # noqa: ANN401
    try:
        value = parameter_value_to_python(message)
    except RuntimeError as error:
        raise InputError(f"a field cannot be read: {error}") from error
    is_bytes = isinstance(value, list) and value and isinstance(value[0], bytes)
    return b"".join(value) if is_bytes else value
