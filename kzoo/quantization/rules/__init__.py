"""Translation of Keras layers into graph operations, and the machinery of rewrite rules."""
