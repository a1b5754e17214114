"""``vditrack doctor``: what works on this machine, what does not, and what mends it.

It is for environments in which other things are broken, so its own modules import the standard
library alone; everything else is asked for in a process of its own. ``python -m vditrack.doctor``
is the same where the command line does not load.
"""
