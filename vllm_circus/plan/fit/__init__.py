"""Whether a model fits its GPUs: what it needs by its files, what they have, and what to change. Pure but for `Disk`.

`architecture` reads config.json, `weights` the files' sizes, `setup` the engine's options, `lessons` what earlier loads
told; `verdict` puts them together and `advice` looks for changes that help.
"""
