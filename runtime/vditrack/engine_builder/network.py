"""Reading a graph into a strongly typed network."""

from pathlib import Path
from types import ModuleType

from vditrack.engine_builder.library import Foreign
from vditrack.errors import EngineError
from vditrack.inference.engine_identity import Shape


def parsed_network(
    trt: ModuleType, builder: Foreign, logger: Foreign, graph: Path, title: str
) -> tuple[Foreign, Foreign]:
    """Parse an ONNX graph.

    Types are bound by the graph: TensorRT 10 has to be asked for that, 11 does nothing else.

    Args:
        trt: the library.
        builder: of the network.
        logger: as `vditrack.inference.trt_log` makes it.
        graph: with its external weights beside it.
        title: of the library, with its version.

    Returns:
        The network, and the parser, which holds its weights: keep it for as long.

    Raises:
        EngineError: the library does not support an operation of the graph.

    """
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise EngineError(_complaint(title, parser, logger, graph))
    return network, parser


def profile_of(network: Foreign) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Least, best and largest shape of each input; all the same, since the graphs are static."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    return {tensor.name: (tuple(tensor.shape),) * 3 for tensor in inputs}


def _complaint(title: str, parser: Foreign, logger: Foreign, graph: Path) -> str:
    if not parser.num_errors:
        return f"{graph} cannot be read by {title}: {last(logger.errors)}. Export it again."
    # Later errors are of nodes that want this one's output.
    error = parser.get_error(0)
    operation = error.node_operator() or "an operation"
    node = error.node_name() or error.node()
    return (
        f"{graph}: {title} does not support {operation} as node {node!r} uses it: "
        f"{' '.join(error.desc().split())} Export the bundle again with this vditrack; if it stays "
        "so, this backbone needs another version of the library, or ONNX Runtime."
    )


def last(errors: list[str], count: int = 2) -> str:
    """The newest messages of a logger, on one line."""
    return " / ".join(" ".join(error.split()) for error in errors[-count:]) or "no reason given"
