"""The verb `vditrack propagate`: masks of objects, from files to files."""
