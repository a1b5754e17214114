"""Numeric types of sensor_msgs/PointField, and reading fields from a sensor_msgs/PointCloud2."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import InputError

POINT_FIELD_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""NumPy type, without byte order, of each `datatype` constant of sensor_msgs/PointField."""


class PointFieldMessage(Protocol):
    """The fields of sensor_msgs/PointField that are read here."""

    name: str
    offset: int
    datatype: int


class PointCloudMessage(Protocol):
    """The fields of sensor_msgs/PointCloud2 that are read here."""

    height: int
    width: int
    fields: Sequence[PointFieldMessage]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: Any


def point_field_layout(row: np.dtype[np.void]) -> tuple[tuple[str, int, int], ...]:
    """Return (name, offset, datatype) of each field of a structured dtype, as PointField has them.

    Args:
        row: one point; fields are scalars of the types in `POINT_FIELD_DTYPES`.

    """
    datatypes = {dtype: datatype for datatype, dtype in POINT_FIELD_DTYPES.items()}
    return tuple(
        (name, field[1], datatypes[field[0].str[1:]]) for name, field in (row.fields or {}).items()
    )


def read_point_fields(cloud: PointCloudMessage, names: Sequence[str]) -> NDArray[np.void]:
    """View fields of a sensor_msgs/PointCloud2 as a structured array [height, width], uncopied.

    Args:
        cloud: the message.
        names: the fields to read; all are in the cloud.

    Raises:
        InputError: the data do not fit the layout that the message declares.

    """
    fields = {field.name: field for field in cloud.fields}
    order = ">" if cloud.is_bigendian else "<"
    try:
        row = np.dtype(
            {
                "names": list(names),
                "formats": [order + POINT_FIELD_DTYPES[fields[name].datatype] for name in names],
                "offsets": [fields[name].offset for name in names],
                "itemsize": cloud.point_step,
            }
        )
        shape, strides = (cloud.height, cloud.width), (cloud.row_step, cloud.point_step)
        return np.ndarray(shape, row, memoryview(cloud.data), strides=strides)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"the point cloud's data do not fit its declared layout: {error}."
        ) from error
