"""Architecture search: which frames each block looks at, how deep each stage is, how wide each layer.

The paper's T-CNN was found by a search (its ref. 12) of which only the abstract can be had; what of this one is
reconstruction stands in docs/choices.md.
"""
