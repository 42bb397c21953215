"""Small datasets in the exact form in which their makers publish them, written from rendered scenes.

One file per dataset family: `write(root, world, ...)` lays the tree on disk, names, keys, conventions and all. `world`
renders what they show; `proof` says how far a converted dataset is from the truth. Nothing here imports a reader of
the toolkit: what a tree means is stated twice, once here and once there.
"""
