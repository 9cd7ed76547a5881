"""The values of flags that several commands have. Help needs no Keras; a test compares them with those of the code."""

CROPS = (1, 10, 144)
EMBEDDING_POOLINGS = ("avg", "max")
LAYOUTS = ("auto", "classes", "splits")
ON_ERRORS = ("error", "skip")
SAMPLINGS = ("uniform", "balanced")
