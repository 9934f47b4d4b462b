"""The questions that the engine knows: each file builds a ``Task`` (words to ask, and how to read
the reply). The words are the models' makers' own wherever they published some, for that is what
the models were trained on. Tasks see text and sizes, never pixels."""
