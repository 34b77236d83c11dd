"""Makes small pictures of large ones."""

import base64
import io
import os

from PIL import Image


def handler(event, context):
    """Takes and gives a picture in base64."""
    edge = int(os.environ.get("MAX_EDGE", "1024"))
    picture = Image.open(io.BytesIO(base64.b64decode(event["picture"])))
    picture.thumbnail((edge, edge))
    small = io.BytesIO()
    picture.save(small, "PNG")
    return {"picture": base64.b64encode(small.getvalue()).decode(), "size": picture.size}
