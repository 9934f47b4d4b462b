"""The engine: Qwen vision-language models, pictures in, text and boxes out.

Knows nothing of ComfyUI. Importing it is free: torch and transformers are imported when a
picture is prepared or a model is loaded.
"""
