"""Verb ``doctor``: checks what works on this machine, and says how to fix the rest.

It must run in broken environments, so its modules import only the standard library; each probe of
another library runs in a process of its own. ``python -m vditrack.doctor`` does the same where the
command line does not load.
"""
