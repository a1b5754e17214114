"""The errors that users meet. Each message says what is wrong and what to do."""


class VditrackError(Exception):
    """Base of all errors that a user can fix; the command line prints it and exits with code 2."""


class BundleError(VditrackError):
    """A bundle is missing, altered, of an unknown version, or contradicts its manifest."""


class BackendError(VditrackError):
    """No inference engine could be loaded, or it failed on the model."""


class EngineError(VditrackError):
    """An engine could not be built, is damaged, or does not fit its bundle or this machine."""


class InputError(VditrackError):
    """Frames, points, files or options that the caller gave are invalid."""


class DamagedImageError(InputError):
    """One image of a stream is damaged or malformed; the others may be intact."""
