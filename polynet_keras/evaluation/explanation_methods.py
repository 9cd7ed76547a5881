"""The methods of `explain`, by name."""

OCCLUSION = "occlusion"
METHODS = ("grad-cam", "grad-cam++", OCCLUSION)
