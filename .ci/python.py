"""Ends with a sentence where the Python that runs this is not one that the project runs on.

``python .ci/python.py NAME``: NAME is how it was called. Kept so plain that old Pythons read it.
"""

import sys

OLDEST, NEWEST = (3, 10), (3, 13)


def version(numbers):
    return ".".join(str(number) for number in numbers[:2])


def of_environment(folder):
    """The version of the Python in an environment, None where there is none."""
    try:
        with open(folder + "/pyvenv.cfg") as settings:
            pairs = dict(line.partition("=")[::2] for line in settings.read().split("\n"))
    except OSError:
        return None
    told = {key.strip(): value.strip() for key, value in pairs.items()}
    return version((told.get("version_info") or told.get("version", "")).split("."))


def fault(name):
    here = version(sys.version_info)
    if not OLDEST <= tuple(sys.version_info[:2]) <= NEWEST:
        words = "{0} is Python {1}, and this runs on {2} to {3}: name one, as in PYTHON=python{3}"
        return words.format(name, here, version(OLDEST), version(NEWEST))
    for folder in (".venv", ".venv-oldest", ".venv-comfyui"):
        there = of_environment(folder)
        if there and there != here:
            words = "{} is Python {}, but {} was made with {}: run make clean, or leave PYTHON out"
            return words.format(name, here, folder, there)
    return None


if __name__ == "__main__":
    sys.exit(fault(sys.argv[1]))
