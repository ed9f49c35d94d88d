#!/bin/sh
# What `docker run IMAGE` starts, after the path of the model. As with TorchServe's own image, nothing and `serve` serve
# the model, options go to the server, and any other command is run instead.
model=$1
shift
case "${1:-}" in
  "" | -*) ;;
  serve) shift ;;
  *) exec "$@" ;;
esac
exec newsbert serve locally "$model" --host 0.0.0.0 --port 8080 "$@"
