"""What the sub-commands of `sdfgan` do: each has a dataclass, whose fields are its flags, and a function."""
