"""Media: pictures from tensors and files to pixel values, and drawing on them."""
