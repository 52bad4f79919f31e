"""Plan → files: what is decided becomes what circusd, the proxy and the plugins read.

Rule: generators yield `File`s, one writer puts them down. Nothing here starts or asks anything.
"""

from vllm_circus.render.output import File, difference, render_files, write_files

__all__ = ["File", "difference", "render_files", "write_files"]
