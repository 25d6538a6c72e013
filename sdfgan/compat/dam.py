"""The network of Neural Implicit Tools, by `train-sdf --dam-arch`."""

DAM_WIDTHS = (333, 442, 351, 340, 304, 139, 76, 53, 39, 36, 35)  # found by discriminative masking
