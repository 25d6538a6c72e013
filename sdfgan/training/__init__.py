"""What all trainers share: run folders, checkpoints, logs, progress, and stopping when asked to."""
