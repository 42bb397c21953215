"""What is scored: frames, squares, pairs, sequences and the truth between them; no encoder, no file format."""
