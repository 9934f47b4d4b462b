"""Tasks: each file builds a ``Task``, a prompt and a parser of its replies. Prompts are the model
makers' own wherever they published some, since the models were trained on them. Tasks see text
and sizes, never pixels."""
