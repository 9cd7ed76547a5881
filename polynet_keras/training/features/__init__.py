"""What the frozen part of a network puts out, computed once, kept in files, and trained on in place of images."""
