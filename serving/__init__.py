"""How a model gets served: what there is, what the machine holds, what is started.

What comes before any set-up runs on the standard library alone.
"""
