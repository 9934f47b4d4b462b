"""What a person sees in the graph: one node a file, thin over the engine."""
