"""Vocabulary of scenes: the shapes, colours, grounds, inks and words that are drawn.

The order of each table is part of a scene's seed: a new entry changes every scene.
"""

from __future__ import annotations

RGB = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
COLOURS: dict[str, RGB] = {
    "red": (220, 30, 35),
    "orange": (250, 140, 20),
    "yellow": (245, 220, 30),
    "green": (30, 160, 60),
    "blue": (30, 80, 220),
    "purple": (125, 40, 165),
    "pink": (250, 140, 190),
}
LIGHT: tuple[RGB, ...] = ((255, 255, 255), (236, 236, 236), (250, 245, 228), (226, 236, 246))
DARK: tuple[RGB, ...] = ((0, 0, 0), (38, 38, 38), (20, 26, 52), (44, 26, 30))
INK_ON_LIGHT: tuple[RGB, ...] = ((0, 0, 0), (45, 45, 45), (20, 30, 110), (120, 15, 20))
INK_ON_DARK: tuple[RGB, ...] = (
    (255, 255, 255),
    (215, 215, 215),
    (250, 240, 150),
    (170, 225, 250),
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
_WORDS = (
    "HELLO WORLD APPLE HOUSE RIVER STONE LIGHT NIGHT WATER MUSIC TABLE CHAIR PAPER GREEN QUEEN "
    "ZEBRA TIGER HORSE BREAD CLOCK CLOUD DREAM EARTH FIELD FRUIT GLASS GRASS HEART JUICE KNIFE "
    "LEMON MONEY OCEAN PIANO PLANT RADIO SHEEP SMILE SNAKE SUGAR TRAIN VOICE WHALE BIRD BOOK "
    "CAKE DOOR EXIT FISH GOLD HAND ICE JAZZ KEY LAMP MOON NEST OPEN PARK QUIZ RAIN SALE SHOP "
    "STAR STOP TAXI TREE VIEW WIND YES NO ZOO BANK CAFE HOTEL MENU FIRE COLD FREE LOVE SUMMER "
    "WINTER SPRING AUTUMN SILVER ORANGE YELLOW PURPLE GARDEN WINDOW MARKET BRIDGE STREET CASTLE "
    "DOCTOR"
)
WORDS = _WORDS.split()
CARD_KEYS = (
    "NAME", "DATE", "TOTAL", "CITY", "CODE", "PRICE", "ROOM", "SEAT", "SIZE", "TIME", "TABLE",
    "NUMBER",
)  # fmt: skip
