"""PDF files for tests, put together from their few objects."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from pathlib import Path

# A page of 200x100 points, encrypted (AES, revision 4) with the password "sesame".
_ENCRYPTED = (
    "c-n<hyN=U96fJ0wKLF8jn^drP-u6gVBzBWX5v&p=WSiBlG@cn}gR=I@nV{V*_!J6C8a{!NZ=m7>poR*>jPpb(@W{IM"
    "nS0N<uhy{BJHpRJ)cXAE!=DHPf+~L#Wf{anHMI*M9vMOW`tHU;e4?D1S5s)WBU_r_NcI9ws%7Z_L;P}P7H|%<3BA|^"
    "ulRPM^q<hu+0re5t>jLvnW^LI*0Ugg2tt7Udl6V_@3={8WEa)4)}Gh1wA=eqdrE9i>6I;~?g}V@xHp?STYEcK&UUP>"
    "OcS(lwN=;AkK=ETzy5r8Kf(Rq`spW^_McpSkDs+ZK6>~7eR+Qw$k(oG8NOdoFJu&tomqdqSh}n3+mL$Psr2B+mci-N"
    "Uv$T3WSbWjp^Q+;CcCjyrBSunxsVj%0c6PJTymzhAyjZ7Z6dftLaRbB%NUW0X@ZQfQi{UZLJDeS&QXdAX;DhO#-IzC"
    "H$ynWD6o!v|GnUKZ<Dz<_3mc^8D@gua5y5urrL6@gh(mX#Gpj^K@rTDkP_w6GK?8Yuwq7H#AM1e_G*)r=$Y5rjp(+v"
    "MT9^^X#0TRoN_2&i(%j4=BC_Xf*oL(&;yJRd4N&B1Y6A2YBu-%4zn6nRoLTZ!^X3F3j*SP2hKC!MnSYhxX?+G(<GIg"
    "7c|wn$eHmaw*T+pSGZg1`tHU7Zxou1Q?+Y4AXpl;THQe}`U?&c_qP"
)

Rgb = tuple[float, float, float]


def write_pdf(
    path: Path,
    pages: Sequence[tuple[float, float, Rgb]],
    rotate: int = 0,
    texts: Sequence[str] = (),
) -> Path:
    """A PDF with a page for each (width, height, colour) in points: its lower half filled with the
    colour, its upper one white, with a line of Helvetica from ``texts``."""
    kids = " ".join(f"{3 + 2 * index} 0 R" for index in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>",
    ]
    for index, (width, height, (red, green, blue)) in enumerate(pages):
        text = texts[index] if index < len(texts) else ""
        content = f"{red} {green} {blue} rg 0 0 {width} {height / 2} re f"
        content += f" 0 g BT /F 12 Tf 20 {height - 30} Td ({text}) Tj ET" if text else ""
        objects += [
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {width} {height}]/Rotate {rotate}"
            "/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>"
            f"/Contents {4 + 2 * index} 0 R>>",
            f"<</Length {len(content)}>>stream\n{content}\nendstream",
        ]
    data, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj{body}endobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    data += (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
        f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(data)}\n%%EOF\n"
    ).encode()
    path.write_bytes(data)
    return path


def write_encrypted_pdf(path: Path) -> Path:
    """One page; the password is "sesame"."""
    path.write_bytes(zlib.decompress(base64.b85decode(_ENCRYPTED)))
    return path
