#!/bin/sh
# What `docker run IMAGE` starts. As with TorchServe's own image, nothing and `serve` serve the model, options go to
# the server, and any other command is run instead.
case "${1:-}" in
  "" | -*) ;;
  serve) shift ;;
  *) exec "$@" ;;
esac
exec newsbert serve locally /opt/model/news_classification.mar --host 0.0.0.0 --port 8080 "$@"
