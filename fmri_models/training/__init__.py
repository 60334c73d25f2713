"""Recipes and the trainer, from the outside to the inside.

What a recipe says is in `recipe`, what it may say in `recipe_options`, where it stands in `recipe_files`; `settling`
decides what it leaves to the data. `trainer` goes through the folds; `fold` chooses the settings of one (`selection`),
trains it and saves it; `training_run` is one run with its checkpoints; `stages` goes through its stages, each with an
objective of the method (`stage_objectives`) and what it learns from (`stage_examples`). `loop` and `gradient` train a
stage by gradient.

What all of them need is made in one place, `building`: subjects, processor, image generator, targets and the model.
`before_training` refuses and warns before any work; `estimate` says what the work will cost.
"""
