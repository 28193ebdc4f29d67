"""One click command per module; `edgecnn.cli` finds them by name."""
