"""Container images: their build contexts, the container engine, and the programs that run inside images."""
