"""Parses a graph into a strongly typed network."""

from pathlib import Path
from types import ModuleType

from vditrack.engine_builder.library import LibraryObject
from vditrack.errors import EngineError
from vditrack.inference.engine_identity import Shape


def parse_network(
    trt: ModuleType, builder: LibraryObject, logger: LibraryObject, graph: Path, title: str
) -> tuple[LibraryObject, LibraryObject]:
    """Parse an ONNX graph into a strongly typed network.

    A strongly typed network takes all types from the graph. TensorRT 10 needs a flag for that;
    TensorRT 11 has no other networks.

    Args:
        trt: Module of the library.
        builder: Builder of the library.
        logger: Logger that collects errors, made by `vditrack.inference.trt_log`.
        graph: ONNX file, its external weights beside it.
        title: Name of the library, with its version.

    Returns:
        The network and the parser. The parser owns the weights and must outlive the network.

    Raises:
        EngineError: The file cannot be read, or the library does not support an operation in it.

    """
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise EngineError(_explain_parser_error(title, parser, logger, graph))
    return network, parser


def get_profile(network: LibraryObject) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Return the smallest, optimal and largest shape of each input: equal, as graphs are static."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    return {tensor.name: (tuple(tensor.shape),) * 3 for tensor in inputs}


def _explain_parser_error(
    title: str, parser: LibraryObject, logger: LibraryObject, graph: Path
) -> str:
    if not parser.num_errors:
        reason = format_last_messages(logger.errors)
        return f"{graph}: {title} cannot read this file: {reason}. Export the bundle again."
    # Later errors are of nodes that need the output of the first.
    error = parser.get_error(0)
    operation = error.node_operator() or "an operation"
    node = error.node_name() or error.node()
    return (
        f"{graph}: {title} does not support {operation} as node {node!r} uses it: "
        f"{' '.join(error.desc().split())} Export the bundle again with this version of vditrack; "
        "if the error remains, use another version of the library, or ONNX Runtime."
    )


def format_last_messages(errors: list[str], count: int = 2) -> str:
    """Return the last ``count`` messages of a logger on one line."""
    return " / ".join(" ".join(error.split()) for error in errors[-count:]) or "no reason given"
