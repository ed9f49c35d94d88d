"""A page to try models on: one types a text, and sees what each answers, how sure it is, and which words count.

Starlette serves it, on uvicorn: three files and three answers in JSON need routes and a check of hosts, and both come
with MLflow as it is. Gradio would bring a framework of pages and fonts and scripts from elsewhere.
"""
