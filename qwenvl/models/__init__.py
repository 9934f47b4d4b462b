"""Models: loading, devices, memory, and patches to the library's modules."""
