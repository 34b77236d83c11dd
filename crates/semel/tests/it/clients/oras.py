"""Speaks for the tests with the ORAS client for Python: push, pull or attach; prints a digest or what was found."""

import hashlib
import json
import os
import sys

import oras.client
import oras.oci

verb, reference, *words = sys.argv[1:]
client = oras.client.OrasClient(insecure=True)


def manifest():
    """The bytes of the manifest, as the server sends them."""
    container = client.get_container(reference)
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    answer = client.do_request(f"http://{container.manifest_url()}", "GET", headers=accept)
    answer.raise_for_status()
    return answer.content


def descriptor():
    """The descriptor of the manifest."""
    content = manifest()
    return {
        "mediaType": json.loads(content)["mediaType"],
        "digest": "sha256:" + hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }


if verb == "push":
    client.push(target=reference, files=words, disable_path_validation=True, do_chunked=True, chunk_size=8)
elif verb == "pull":
    for path in client.pull(target=reference, outdir=words[0]):
        print(os.path.basename(path), open(path).read())
    print(descriptor()["digest"])
elif verb == "attach":
    subject = oras.oci.Subject(**descriptor())
    target = client.get_container(reference)
    client.push(
        target=f"{target.registry}/{target.api_prefix}:{words[0]}",
        files=words[1:],
        subject=subject,
        disable_path_validation=True,
    )
else:
    sys.exit(f"unknown: {verb}")
