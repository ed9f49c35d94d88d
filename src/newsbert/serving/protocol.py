"""Names that servers and clients agree on."""

SERVED_NAME = "news_classification"
"""The model's name in URLs: `/predictions/news_classification`."""

MODEL_HEADER = "X-Newsbert-Model"

METRICS_PATH = "/metrics"
