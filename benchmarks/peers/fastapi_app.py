"""FastAPI with a transformers pipeline, as FastAPI's tutorial writes an endpoint: a plain function, run in its pool.

uvicorn fastapi_app:app
"""

import classify
from fastapi import FastAPI
from pydantic import BaseModel


class News(BaseModel):
    """A request."""

    text: str


app = FastAPI()
graph = classify.load() if classify.GRAPH else None
pipe = None if graph else classify.pipeline()


@app.post("/predict")
def predict(news: News) -> dict[str, float]:
    """Classify one text."""
    if graph:
        return graph([news.text])[0]
    assert pipe
    return {each["label"]: each["score"] for each in pipe([news.text])[0]}
