"""TorchServe handlers over tzk_core.service, installed as ``tzk_handlers``."""
