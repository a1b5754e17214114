"""What can go wrong for a user, each message with its remedy."""


class VditrackError(Exception):
    """Base of every error that a user can mend: the command line prints it and exits with 2."""


class BundleError(VditrackError):
    """A bundle is missing, altered, of an unknown version, or does not have the shape it claims."""


class BackendError(VditrackError):
    """No inference engine could be loaded, or it refused the model."""


class EngineError(VditrackError):
    """An engine could not be built, is damaged, or does not fit its bundle or this machine."""


class InputError(VditrackError):
    """Frames, points, files or options handed in by the caller do not make sense."""
