"""For all tests."""

import signal

# A shell lets what it runs in the background ignore an interrupt, and all that this starts too.
# Tests interrupt what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
