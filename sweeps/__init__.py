"""Ablation sweeps: studies, the stage tree, the stage trainer, the engines and the tracker."""
