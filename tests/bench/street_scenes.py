"""Drawn streets that are hard to segment: eleven classes and void, as street photos have them.

Colours differ from object to object, and walls have upright bars as thin as poles. Poles are 3 to
5 px wide and cover 1.3 % of the pixels of 480 x 360, signs .2, fences .7, persons 1, cyclists .6.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 480, 360
VOID = 255
COLOURS = {
    "sky": (185, 205, 225), "building": (130, 115, 105), "pole": (115, 112, 110),
    "road": (98, 97, 100), "pavement": (140, 135, 130), "tree": (75, 90, 60),
    "sign": (170, 120, 90), "fence": (110, 105, 95), "car": (105, 95, 100),
    "person": (85, 75, 85), "cyclist": (85, 80, 85),
}  # fmt: skip
LABELS = tuple(COLOURS)
SPLITS = {"train": 200, "val": 30, "test": 70}


class Street:
    """An image and its mask, drawn together."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.horizon = rng, int(rng.integers(130, 190))
        self.tint = {name: rng.normal(0, 12, 3) for name in LABELS}
        self.mask = Image.new("L", (WIDTH, HEIGHT), 0)
        self.image = Image.new("RGB", (WIDTH, HEIGHT))
        self.on_mask, self.on_image = ImageDraw.Draw(self.mask), ImageDraw.Draw(self.image)

    def colour(self, name: str, deviation: float = 18) -> tuple[int, ...]:
        """Return a colour of one object of a class."""
        rng = self.rng
        own = np.array(COLOURS[name]) + self.tint[name]
        own = own + rng.normal(0, deviation) + rng.normal(0, deviation / 2, 3)
        return tuple(int(v) for v in own.clip(0, 255))

    def draw(self, shape: str, place: object, name: str, fill: object = None) -> None:
        """Draw a shape of a class on both."""
        getattr(self.on_mask, shape)(place, fill=LABELS.index(name))
        getattr(self.on_image, shape)(place, fill=fill or self.colour(name))

    def ground(self) -> None:
        rng, horizon = self.rng, self.horizon
        self.on_image.rectangle((0, 0, WIDTH, HEIGHT), fill=self.colour("sky"))
        x = -20
        while x < WIDTH:
            width, top = int(rng.integers(50, 130)), int(rng.integers(0, horizon - 20))
            if rng.random() < 0.75:
                self.building(x, width, top)
            x += width + int(rng.integers(0, 20))
        self.draw("rectangle", (0, horizon + 5, WIDTH, HEIGHT), "pavement")
        left, right = rng.uniform(0.3, 0.45) * WIDTH, rng.uniform(0.55, 0.7) * WIDTH
        corners = [(left, horizon + 5), (right, horizon + 5), (WIDTH + 60, HEIGHT), (-60, HEIGHT)]
        self.draw("polygon", corners, "road")
        for _ in range(rng.integers(2, 6)):  # markings
            x = rng.uniform(left, right)
            line = (x, horizon + 10, x + 3 * (x - WIDTH / 2), HEIGHT)
            self.on_image.line(line, fill=(180, 180, 175), width=int(rng.integers(1, 4)))

    def building(self, x: int, width: int, top: int) -> None:
        """Draw a wall with windows, and bars that look like poles."""
        rng, horizon = self.rng, self.horizon
        own = np.array(self.colour("building", 25))
        self.draw("rectangle", (x, top, x + width, horizon + 25), "building", tuple(own.tolist()))
        change = rng.choice([-1, 1]) * rng.integers(15, 45)
        fill = tuple((own + change).clip(0, 255).tolist())
        step, bar = int(rng.integers(9, 24)), int(rng.integers(1, 7))
        for left in range(x + 5, x + width - 5, step):
            if rng.random() < 0.35:
                self.on_image.rectangle((left, top + 4, left + bar, horizon), fill=fill)
                continue
            for y in range(top + 6, horizon, 18):
                self.on_image.rectangle((left, y, left + bar, y + 10), fill=fill)

    def tree(self) -> None:
        rng = self.rng
        x, y, r = rng.uniform(0, WIDTH), rng.uniform(40, self.horizon), rng.uniform(20, 60)
        self.draw("rectangle", (x - 3, y, x + 3, self.horizon + 15), "tree", (80, 65, 50))
        for _ in range(14):
            a, b = x + rng.normal(0, r / 2), y + rng.normal(0, r / 2)
            s = r * rng.uniform(0.2, 0.5)
            self.draw("ellipse", (a - s, b - s, a + s, b + s), "tree")

    def fence(self) -> None:
        """Draw a fence, through which one sees: all of it is fence in the mask."""
        rng, fill = self.rng, self.colour("fence")
        x, width, height = rng.uniform(-30, 350), rng.uniform(60, 180), rng.uniform(14, 30)
        y = self.horizon + rng.uniform(10, 40)
        place = (x, y - height, x + width, y)
        self.on_mask.rectangle(place, fill=LABELS.index("fence"))
        for post in np.arange(x, x + width, rng.uniform(4, 8)):
            line, wide = (post, y - height, post, y), int(rng.integers(1, 3))
            self.on_image.line(line, fill=fill, width=wide)
        self.on_image.line((x, y - height, x + width, y - height), fill=fill, width=2)

    def thing(self, bottom: float, kind: str) -> None:
        """Draw a car, person, cyclist or pole that stands at `bottom`, nearer ones larger."""
        x, s = self.rng.uniform(0, WIDTH), (bottom - self.horizon + 14) / 60
        getattr(self, kind)(x, bottom, s, self.colour(kind))

    def car(self, x: float, y: float, s: float, fill: object) -> None:
        body, roof = (x - 30 * s, y - 22 * s, x + 30 * s, y), (x - 20 * s, y - 38 * s, x + 20 * s)
        self.draw("rounded_rectangle", body, "car", fill)
        self.draw("rounded_rectangle", (*roof, y - 18 * s), "car", fill)
        panes = (x - 16 * s, y - 35 * s, x + 16 * s, y - 24 * s)
        self.on_image.rectangle(panes, fill=(60, 65, 75))

    def person(self, x: float, y: float, s: float, fill: object, kind: str = "person") -> None:
        head = (x - 4 * s, y - 50 * s, x + 4 * s, y - 42 * s)
        self.draw("ellipse", head, kind, (150, 120, 105))
        self.draw("rectangle", (x - 6 * s, y - 42 * s, x + 6 * s, y - 20 * s), kind, fill)
        self.draw("rectangle", (x - 4 * s, y - 22 * s, x + 4 * s, y), kind)

    def cyclist(self, x: float, y: float, s: float, fill: object) -> None:
        self.person(x, y, s, fill, "cyclist")
        for aside in (-12, 12):
            wheel = (x + (aside - 9) * s, y - 16 * s, x + (aside + 9) * s, y + 2 * s)
            self.on_mask.ellipse(wheel, fill=LABELS.index("cyclist"))
            self.on_image.ellipse(wheel, outline=(40, 40, 45), width=2)

    def pole(self, x: float, y: float, s: float, fill: object) -> None:
        """Draw a pole, on some of which there is a sign."""
        rng = self.rng
        half, top = rng.uniform(1.2, 2.4), rng.uniform(5, 90)
        self.draw("rectangle", (x - half, top, x + half, y), "pole", fill)
        if rng.random() < 0.45:
            r, shape = rng.uniform(5, 10), str(rng.choice(["rectangle", "ellipse"]))
            self.draw(shape, (x - r, top, x + r, top + 2 * r), "sign", self.colour("sign", 40))

    def something_else(self) -> None:
        """Draw what is void."""
        rng = self.rng
        x, y, r = rng.uniform(0, WIDTH), rng.uniform(self.horizon, HEIGHT), rng.uniform(5, 20)
        place = (x - 2 * r, y - r, x + 2 * r, y)
        self.on_mask.ellipse(place, fill=VOID)
        self.on_image.ellipse(place, fill=tuple(rng.integers(40, 200, 3).tolist()))

    def photo(self) -> Image.Image:
        """Return the image as a camera has it: blurred, lit unevenly, with noise."""
        rng = self.rng
        coarse = rng.normal(0, 14, (HEIGHT // 12, WIDTH // 12)) + rng.normal(0, 10)
        light = Image.fromarray(coarse.astype("float32"))
        light = np.asarray(light.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))[..., None]
        pixels = np.asarray(self.image.filter(ImageFilter.GaussianBlur(0.8)), "float32")
        pixels = pixels + light + rng.normal(0, 8, (HEIGHT, WIDTH, 3))
        return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


def street(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Return (image, mask of class ids)."""
    scene = Street(rng)
    horizon = scene.horizon
    scene.ground()
    for _ in range(rng.integers(1, 4)):
        scene.tree()
    if rng.random() < 0.5:
        scene.fence()
    # How many at least and at most, and how far below the horizon they stand.
    kinds = {
        "car": (1, 5, HEIGHT - 30), "person": (0, 4, HEIGHT - 60), "cyclist": (0, 2, HEIGHT - 60),
        "pole": (2, 6, horizon + 80),
    }  # fmt: skip
    things = [
        (rng.uniform(horizon + 12, lowest), kind)
        for kind, (least, most, lowest) in kinds.items()
        for _ in range(rng.integers(least, most))
    ]
    for bottom, kind in sorted(things):
        scene.thing(bottom, kind)
    for _ in range(2):
        scene.something_else()
    return scene.photo(), scene.mask


def draw_streets(folder: Path, splits: dict[str, int] = SPLITS) -> Path:
    """Write the splits with images/ and masks/, and labels.txt, where they are not there yet."""
    if folder.exists():
        return folder
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for part in ("images", "masks"):
            (folder / split / part).mkdir(parents=True)
        for i in range(count):
            image, mask = street(rng)
            image.save(folder / split / "images" / f"{i:04d}.jpg", quality=90)
            mask.save(folder / split / "masks" / f"{i:04d}.png")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    return folder
