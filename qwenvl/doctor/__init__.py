"""Doctor: whether a model sees, reads and finds here what it should, and how fast.

Draws scenes with known truth, asks the model about them, compares.
"""
