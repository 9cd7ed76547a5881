"""Which processes train together: how they are found, meet, wait for each other, and learn of one that failed."""
