"""How a model gets served: what there is, what the machine holds, what is started.

Everything here but `warm` runs on the standard library alone, before any set-up.
"""
