"""Input and output on any fsspec file system: storage, input files and their formats, units, output folders."""
