"""`kzoo serve`: a page on this machine that runs a model on images and the camera."""

import contextlib
import dataclasses

from kzoo.recipes.inputs import require_file, require_model
from kzoo.recipes.options import Command, Options, option


@dataclasses.dataclass(frozen=True)
class ServeOptions(Options):
    """What `kzoo serve` takes."""

    model: str = option("run folder or .tflite file")
    images: tuple[str, ...] = option("image files to show when the page opens", (), positional=True)
    port: int = option("port; 0 picks a free one", 8000)
    cache: str | None = option("folder for LiteRT.js (default: ~/.cache/kzoo)", None)


def run(options: ServeOptions) -> None:
    require_model(options.model, (".tflite",))
    for image in options.images:
        require_file(image)
    from kzoo.recipes.programs.serve_page import serve

    server = serve(options.model, options.images, port=options.port, cache=options.cache)
    print(f"http://127.0.0.1:{server.server_port}/    Ctrl-C ends it", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


COMMAND = Command(
    "serve",
    "open a local page that runs a .tflite file on images and the camera",
    ServeOptions,
    run,
    "kzoo serve runs/photos",
)
