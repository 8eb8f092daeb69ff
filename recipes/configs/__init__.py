"""The options of each recipe: every field is a flag of its command.

Nothing heavy is imported here, so that `kzoo classify --help` answers at once and a wrong value is
refused before Keras is imported. `kzoo.recipes.classify.Config` is `ClassifyConfig`, and so on.
"""
