"""The recipes of dfr and pi-GAN, as curricula (`sdfgan.gan.curricula`): the JSON files beside this one."""

from pathlib import Path

FOLDER = Path(__file__).parent
THEIR_NAMES = {"spatialsirenbaseline": "celeba"}  # the default of pi-GAN's command line
