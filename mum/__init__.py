"""Models of multi-view masked autoencoding and their mathematics; imports no sibling package."""
