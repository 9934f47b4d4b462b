"""Questions about a scene and their true answers.

An answer is a list of pieces, each with the part of the picture that it is about
(its aim). The aims are for training only: they supervise the language model's
attention (see forward.py).

Coordinates in answers are whole numbers relative to the picture, 0..1000, as
the Qwen3-VL family writes them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from . import scenes

NOTHING = "None found."
NO_TEXT = "No text found."

# Openings and joints of JSON answers. Each is one token (see tokenizer.py): answers stay short.
OPEN_BOX, NEXT_BOX = '```json\n[\n\t{"bbox_2d": ', '},\n\t{"bbox_2d": '
OPEN_POINT, NEXT_POINT = '```json\n[\n\t{"point_2d": ', '},\n\t{"point_2d": '
LABEL, TEXT, CLOSE = '], "label": ', '], "text_content": ', "}\n]\n```"
JOINTS = (OPEN_BOX, NEXT_BOX, OPEN_POINT, NEXT_POINT, LABEL, TEXT, CLOSE)
POSITIONS = (
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
READS = ("The text reads", " The text reads")
AT = tuple(f" at the {position}" for position in POSITIONS)

LOCATE = 'Locate every instance that belongs to the following categories: "{}".'
SPOT = "Spotting all the text in the image with line-level, and output in JSON format."
READ = "Read all the text in the image."


@dataclass(frozen=True)
class Piece:
    """Some text of an answer.

    `role` names the attention role, `aim` is ("shape", "line", "key" or "event", index[,
    character]); `about` is what else is looked at first, such an aim too (None: see the turn).
    """

    text: str
    role: str = ""
    aim: tuple = ()
    about: tuple | None = None


@dataclass(frozen=True)
class Turn:
    """One question of the task `kind`, its answer, and which shapes (of a clip: events) that is
    about (None: any). `then`: what is asked after it in the same conversation."""

    kind: str
    question: str
    pieces: tuple[Piece, ...]
    about: tuple[int, ...] | None = None
    names: tuple[str, ...] = field(default=())
    then: Turn | None = None

    @property
    def answer(self) -> str:
        return "".join(p.text for p in self.pieces)


def relative(scene: scenes.Scene, values) -> list[int]:
    """Pixels (x, y, x, y, ...) of the picture to whole numbers 0..1000."""
    return [
        max(0, min(1000, round(1000 * v / scene.picture.size[k % 2]))) for k, v in enumerate(values)
    ]


def position_name(scene: scenes.Scene, shape: scenes.Shape) -> str:
    """Which ninth of the picture the shape's centre lies in."""
    column, row = (min(2, int(3 * shape.centre[k] / scene.picture.size[k])) for k in (0, 1))
    return POSITIONS[3 * row + column]


def _spelled(line: scenes.Line, index: int) -> list[Piece]:
    return [Piece(c, "char", ("line", index, k)) for k, c in enumerate(line.text)]


def _numbers(values, what: str, index: int) -> list[Piece]:
    roles = ("x1", "y1", "x2", "y2") if len(values) == 4 else ("point", "point")
    return [
        Piece(f"[{v}" if k == 0 else f", {v}", roles[k], (what, index))
        for k, v in enumerate(values)
    ]


# ---------------------------------------------------------------- describing
_ASK = (
    "Describe",
    "Caption",
    "Explain",
    "Summarize",
    "Please describe",
    "Please caption",
    "Write a caption for",
    "Give a description of",
    "Provide a description of",
    "Write a description of",
    "Generate a caption for",
    "Write a short caption for",
    "Provide a detailed description of",
    "Give a detailed description of",
    "Write a detailed prompt for",
    "Tell me about",
    "Describe the contents of",
    "Describe everything in",
)
_THIS = (
    "this image",
    "the image",
    "this picture",
    "the picture",
    "this photo",
    "this scene",
    "the scene",
)
_HOW = (
    "",
    "",
    "",
    "",
    " in detail",
    " in detail",
    " briefly",
    " in one sentence",
    " in a few words",
    " in English",
    " in plain words",
    " for me",
    " precisely",
    " with all its shapes and colours",
    " as a list of tags",
    " in a short paragraph",
    " so that it can be drawn again",
)
_WHAT = (
    "What is in this image?",
    "What do you see?",
    "What does the picture show?",
    "What is shown here?",
    "What can you see in this image?",
    "What is this?",
    "What is in the picture?",
    "Describe.",
    "Caption:",
    "Describe what you see.",
    "What objects are in the image?",
    "Which shapes are in the picture?",
)


def describe(scene: scenes.Scene, rng: random.Random) -> Turn:
    """A description. Where the question asks for detail, the answer starts with the ground."""
    if rng.random() < 0.25:
        question = rng.choice(("Describe this image.", "Describe this image in detail."))
    elif rng.random() < 0.25:
        question = rng.choice(_WHAT)
    else:
        question = (
            f"{rng.choice(_ASK)} {rng.choice(_THIS)}{rng.choice(_HOW)}{rng.choice(('.', '.', ''))}"
        )
    pieces = []
    if "detail" in question:
        pieces.append(Piece("On a"))
        pieces.append(Piece(f" {scene.ground}"))
        pieces.append(Piece(" ground: "))
    for k, shape in enumerate(scene.shapes):
        first = ("a" if pieces else "A") if k == 0 else ", a"
        article = first + ("n" if shape.colour == "orange" else "")
        aim = ("shape", k)
        pieces += [
            Piece(article, "look", aim),
            Piece(f" {shape.colour}", "look", aim),
            Piece(f" {shape.kind}", "look", aim),
            Piece(f" at the {position_name(scene, shape)}", "look", aim),
        ]
    if scene.shapes:
        pieces.append(Piece(".", "stop"))
    for k, line in enumerate(scene.lines):
        lead = (" The text reads" if scene.shapes else "The text reads") + ' "' if k == 0 else ', "'
        pieces += [Piece(lead, "look", ("line", k)), *_spelled(line, k), Piece('"')]
    if scene.lines:
        pieces.append(Piece(".", "stop"))
    return Turn("describe", question, tuple(pieces), tuple(range(len(scene.shapes))))


# ------------------------------------------------------------------- reading
_READ = (
    READ,
    READ,
    READ,
    "Read the text.",
    "Read the text in the image.",
    "What does it say?",
    "What is written here?",
    "What text is in the image?",
    "Transcribe the text.",
    "Extract all text from this image.",
    "OCR",
    "Read all the text in this picture.",
    "Extract the text in the image.",
    "qwenvl markdown",
    "Transcribe all the text in the image.",
    "Read every line of text.",
    "Read the image.",
)


def read(scene: scenes.Scene, rng: random.Random) -> Turn:
    """All the text, a line each."""
    pieces = []
    for k, line in enumerate(scene.lines):
        if k:
            pieces.append(Piece("\n", "look", ("line", k)))
        pieces += _spelled(line, k)
    return Turn("read", rng.choice(_READ), tuple(pieces) or (Piece(NO_TEXT, "stop"),))


_SPOT = (
    SPOT,
    SPOT,
    "Spot all the text in the image with line-level, and output in JSON format.",
    "Locate all the text in the image and report bbox coordinates in JSON format.",
    "Find all text lines. Output bbox and text content in JSON format.",
)


def spot(scene: scenes.Scene, rng: random.Random) -> Turn:
    """Each line with its box."""
    pieces = []
    for k, line in enumerate(scene.lines):
        pieces += [
            Piece(NEXT_BOX if k else OPEN_BOX, "look", ("line", k)),
            *_numbers(relative(scene, line.box), "line", k),
            Piece(TEXT + '"'),
            *_spelled(line, k),
            Piece('"'),
        ]
    pieces.append(Piece(CLOSE if scene.lines else NOTHING, "stop"))
    return Turn("spot", rng.choice(_SPOT), tuple(pieces))


# ------------------------------------------------------------------- finding
def fits(shape: scenes.Shape, name: str) -> bool:
    """Does a category such as "star" or "red circle" name this shape?"""
    return name in (shape.name, shape.kind)


def categories(
    scene: scenes.Scene, rng: random.Random, absent: bool | None = None
) -> tuple[str, ...]:
    """One to three categories that do not overlap; `absent` True: none is there, False: all."""
    if absent is None:
        absent = rng.random() < 0.2
    names: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        here = scene.shapes and not absent and (not names or rng.random() < 0.8)
        shape = (
            rng.choice(scene.shapes)
            if here
            else scenes.Shape(rng.choice(scenes.SHAPES), rng.choice(list(scenes.COLOURS)), (0,) * 4)
        )
        if not here and scene.shapes and rng.random() < 0.5:  # nearly right is the harder question
            real = rng.choice(scene.shapes)
            shape = rng.choice(
                (
                    scenes.Shape(real.kind, shape.colour, real.box),
                    scenes.Shape(shape.kind, real.colour, real.box),
                )
            )
        name = rng.choice((shape.name, shape.name, shape.kind))
        present = any(fits(s, name) for s in scene.shapes)
        kinds = {n.split()[-1]: n for n in names}
        clash = (
            name in names
            or (kinds.get(shape.kind) == shape.kind)
            or (name == shape.kind and shape.kind in kinds)
        )
        if not clash and not (absent and present):
            names.append(name)
    return tuple(names) or (
        categories(scene, rng, absent) if scene.shapes or absent else ("circle",)
    )


_BOX = (LOCATE + " Report bbox coordinates in JSON format.",) * 4 + (
    LOCATE.replace('"', "") + " Report bbox coordinates in JSON format.",
    LOCATE + " Output the bbox coordinates in JSON format.",
    "Locate every {}. Report bbox coordinates in JSON format.",
    "Find: {}. Report bbox coordinates in JSON format.",
    "Detect {} in the image. Output bbox coordinates in JSON format.",
    'Locate all objects of the categories "{}". Report bbox coordinates in JSON format.',
)
_POINT = (
    (LOCATE + " Report point coordinates in JSON format.",) * 2
    + (LOCATE + " Output the point coordinates in JSON format.",) * 2
    + (
        "Locate every {}. Output the point coordinates in JSON format.",
        "Point to {}. Report point coordinates in JSON format.",
    )
)


def _found(scene, names) -> list[tuple[str, int]]:
    """(category, shape index): category by category, and left to right within each."""
    return [(n, k) for n in names for k, s in enumerate(scene.shapes) if fits(s, n)]


def _located(scene, names, kind, question) -> Turn:
    pieces = []
    for n, (name, k) in enumerate(found := _found(scene, names)):
        shape = scene.shapes[k]
        values = relative(scene, shape.box if kind == "ground" else shape.centre)
        joints = (OPEN_BOX, NEXT_BOX) if kind == "ground" else (OPEN_POINT, NEXT_POINT)
        first, *rest = name.split()
        pieces += [
            Piece(joints[n > 0], "look", ("shape", k)),
            *_numbers(values, "shape", k),
            Piece(LABEL + '"'),
            Piece(first, "look", ("shape", k)),
        ]
        pieces += [Piece(f" {word}", "look", ("shape", k)) for word in rest] + [
            Piece('"', "look", ("shape", k))
        ]
    pieces.append(Piece(CLOSE if found else NOTHING, "stop"))
    return Turn(kind, question, tuple(pieces), tuple(k for _, k in found), names)


def ground(scene: scenes.Scene, rng: random.Random, absent: bool | None = None) -> Turn:
    """Boxes of the shapes of some categories."""
    return located(scene, categories(scene, rng, absent), rng)


def located(scene: scenes.Scene, names: tuple[str, ...], rng: random.Random) -> Turn:
    """Boxes of the shapes of the categories `names`."""
    return _located(scene, names, "ground", rng.choice(_BOX).format(", ".join(names)))


def point(scene: scenes.Scene, rng: random.Random, absent: bool | None = None) -> Turn:
    """Centres of the shapes of some categories."""
    names = categories(scene, rng, absent)
    return _located(scene, names, "point", rng.choice(_POINT).format(", ".join(names)))


# -------------------------------------------------------------------- extras
def count(scene: scenes.Scene, rng: random.Random) -> Turn:
    """How many shapes, of any kind or of one."""
    if rng.random() < 0.5:
        about, what = tuple(range(len(scene.shapes))), "shapes"
    else:
        name = categories(scene, rng)[0]
        about, what = tuple(k for k, s in enumerate(scene.shapes) if fits(s, name)), f"{name}s"
    return counted(rng, what, about)


def counted(rng: random.Random, what: str, about: tuple[int, ...]) -> Turn:
    """How many there are of `what`, in the plural."""
    ask = rng.choice(
        ("How many {} are there?",) * 3 + ("How many {} are in the image?", "Count the {}.")
    )
    return Turn("count", ask.format(what), (Piece(str(len(about)), "count"),), about)


def yes_no(scene: scenes.Scene, rng: random.Random) -> Turn:
    """Is a category there?"""
    name = categories(scene, rng, absent=rng.random() < 0.5)[0]
    about = tuple(k for k, s in enumerate(scene.shapes) if fits(s, name))
    article = "an" if name[0] == "o" else "a"
    ask = rng.choice(
        ("Is there {} {}?", "Is there {} {} in the image?", "Do you see {} {}?")
    ).format(article, name)
    return Turn("yes_no", ask, (Piece("Yes." if about else "No."),), about)


def _named(shapes: list[tuple[str, str]]) -> str:
    """A caption of shapes, each a colour and a kind."""
    return ", ".join(
        f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {kind}" for colour, kind in shapes
    )


def shown(scene: scenes.Scene, rng: random.Random) -> Turn:
    """Does a caption fit? In the words of scores."""
    shapes = [(shape.colour, shape.kind) for shape in scene.shapes]
    if rng.random() < 0.5:
        shapes = shapes[(at := rng.randrange(len(shapes))) : at + 1]
    true = list(shapes)
    if rng.random() < 0.5:
        at = rng.randrange(len(shapes))
        colour, kind = shapes[at]
        others = [(c, kind) for c in scenes.COLOURS] + [(colour, k) for k in scenes.SHAPES]
        here = [(shape.colour, shape.kind) for shape in scene.shapes]
        shapes[at] = rng.choice([other for other in others if other not in here])
    about = tuple(k for k, s in enumerate(scene.shapes) if (s.colour, s.kind) in shapes)
    text = _named(shapes) if rng.random() < 0.8 else " and ".join(" ".join(s) for s in shapes)
    question = f'Does this image show "{text}"? Answer yes or no.'
    return Turn("yes_no", question, (Piece("Yes." if shapes == true else "No."),), about)


def ordinary(scene: scenes.Scene, rng: random.Random, number: int) -> list[Turn]:
    """`number` questions about this scene, chosen so that most have something to find."""
    weights = {
        describe: 3,
        read: 3 if scene.lines else 0.3,
        spot: 2 if scene.lines else 0.2,
        ground: 4 if scene.shapes else 0.6,
        point: 2 if scene.shapes else 0.3,
        count: 0.6,
        yes_no: 0.8 if scene.shapes else 0.2,
        shown: 0.8 if scene.shapes else 0,
    }
    return [ask(scene, rng) for ask in rng.choices(list(weights), list(weights.values()), k=number)]
