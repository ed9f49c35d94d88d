"""FastAPI with a transformers pipeline, in a plain function as in FastAPI's tutorial.

uvicorn fastapi_app:app
"""

import classify
from fastapi import FastAPI
from pydantic import BaseModel


class News(BaseModel):
    """A request."""

    text: str


app = FastAPI()
classifier = classify.load() if classify.GRAPH else classify.pipeline()


@app.post("/predict")
def predict(news: News) -> dict[str, float]:
    """Classify one text."""
    return classifier([news.text])[0]
