"""A web page to try models: type a text, and see every model's prediction, its confidence and the words that count.

Starlette serves it on uvicorn. Three files and three JSON endpoints need only routes and a check of host names, and
MLflow depends on both packages anyway. Gradio would add a page framework, with fonts and scripts from other hosts.
"""
