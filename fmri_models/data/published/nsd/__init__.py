"""The Natural Scenes Dataset in its public forms, which `dataset_scripts/nsd.py` chooses from.

What all forms share is in `experiment`; a form is a module: `release` (of whose files `release_files` reads, and
`other_experiments` the test sets of NSD-Imagery and NSD-Synthetic), `mindeye2`, `mindeye`. `captions` are of any form.
"""
