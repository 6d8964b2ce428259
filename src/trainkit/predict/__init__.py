"""What `predict` reads and writes: image files, rows of tables, and the formats of its output."""
