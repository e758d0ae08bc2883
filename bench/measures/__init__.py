"""One module for each measurement; each has `measure`, which returns a section of results."""
