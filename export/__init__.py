"""What leaves a run: model archives for TorchServe; installed as ``tzk_export``."""
