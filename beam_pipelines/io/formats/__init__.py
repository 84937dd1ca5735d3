"""The file formats of inputs: what a file holds, how it is cut into reads, and the units of a read.

Each format is a module with the same three functions: `inspect`, `spans` and `read`; `beam_pipelines.reads` calls them.
"""
