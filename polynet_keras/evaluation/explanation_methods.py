"""The ways in which `explain` looks at a model, by name."""

OCCLUSION = "occlusion"
METHODS = ("grad-cam", "grad-cam++", OCCLUSION)
