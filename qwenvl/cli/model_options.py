"""Model options of the command line: which model answers, of this machine, as GGUF, or behind a
server."""

from __future__ import annotations

import argparse
from typing import Any

from ..checkpoints.library import BUNDLED_NAME
from ..errors import BadOption
from ..servers import keys_file, llama_settings
from ..types import PICTURE_FORMATS, GgufSpec, LocalSpec, ServerSpec, Spec
from .gguf_options import ENDING, add_gguf_options, gguf_spec, is_gguf
from .model_names import DEFAULT_ROOT, adapters_of, checkpoint_of, roots_of
from .user_folder import user_file

_LOADING = {
    "precision": ("auto", "auto, bf16, fp16 or fp32"),
    "quantization": ("none", "none, 8bit or 4bit"),
    "attention": ("auto", "auto, sdpa, eager, flash_attention_2, ..."),
    "device": ("auto", "auto, cpu, cuda:0, ..."),
    "optimize": ("auto", "auto, or off: the model as it comes, by transformers' own generate"),
}
"""Options of how a model is loaded here: their defaults, and what they take."""

_SERVING = {
    "server_model": "model",
    "family": "family",
    "server_kind": "kind",
    "concurrency": "concurrency",
    "timeout": "timeout",
    "allow_http": "allow_http",
    "picture_format": "picture_format",
}
"""Options of how a server is asked, and the fields of ``ServerSpec`` that they set."""

_GGUF = ("mmproj", "context")
_NEEDS = {
    **dict.fromkeys(_SERVING, "--server"),
    **dict.fromkeys(_GGUF, f"a {ENDING} file as --model"),
    "concurrency": f"--server, or a {ENDING} file as --model",
}
"""Options that are about some models only, and what has to be given with them."""


_OF_LLAMA_SERVER = (
    f"a {ENDING} file is read by llama-server: leave it out, and write options of its own into "
    f"{llama_settings.NAME}"
)


def model_options() -> argparse.ArgumentParser:
    """Which model, and how it is loaded or asked: the options of all commands that use one."""
    common = argparse.ArgumentParser(add_help=False)
    # Without a default: the parser sees only values unlike it as given, and refuses both at once.
    which = common.add_mutually_exclusive_group()
    which.add_argument(
        "--model", metavar="NAME|FOLDER|FILE",
        help="a name as models lists it, owner/name as on the hub, a checkpoint's folder, or a "
        f"{ENDING} file, for which an installed llama-server is started (default: {BUNDLED_NAME}, "
        "the small bundled model)",
    )  # fmt: skip
    which.add_argument(
        "--server", action="append", metavar="URL",
        help="in place of a model here, one behind a server that speaks the OpenAI protocol, such "
        "as http://127.0.0.1:8000/v1; may repeat: replicas that share the work. A key that it "
        f"wants stands in {_keys_file()}, as HOST: KEY",
    )  # fmt: skip
    add_roots(common, "where models are looked up by name")
    common.add_argument(
        "--lora", action="append", metavar="FOLDER[:STRENGTH]",
        help="a LoRA adapter's folder, or its name below a --root, and how strongly it is put on "
        "(default: 1, as it was trained); may repeat",
    )  # fmt: skip
    for name, (default, choices) in _LOADING.items():
        common.add_argument(f"--{name}", default=default, metavar="X", help=choices)
    common.add_argument(
        "--yarn", type=float, default=1.0, metavar="FACTOR",
        help="stretch the context by this factor, up to what the model's card gives, such as 4; "
        "short prompts and boxes lose a little (default: 1, the context as it is)",
    )  # fmt: skip
    common.add_argument(
        "--trust-remote-code", action="store_true", help="run Python that lies in the checkpoint"
    )
    _add_serving(common)
    add_gguf_options(common)
    return common


def _keys_file() -> str:
    """As argparse takes it, to which a percent sign would mean something."""
    return str(user_file(keys_file.NAME) or keys_file.NAME).replace("%", "%%")


def _add_serving(parser: argparse.ArgumentParser) -> None:
    """None stands for an option that is not given, which keeps the default of ``ServerSpec``."""
    parser.add_argument(
        "--server-model", metavar="NAME",
        help="of --server: its model, as it lists it (default: the only one)",
    )  # fmt: skip
    parser.add_argument(
        "--family", metavar="TYPE",
        help="of --server: the model's model_type, where its name does not tell it",
    )  # fmt: skip
    parser.add_argument(
        "--server-kind", metavar="KIND",
        help="of --server: what serves, where it does not tell (default: auto, found out)",
    )  # fmt: skip
    parser.add_argument(
        "--concurrency", type=int, metavar="N",
        help="of --server: requests under way at once at each address (default: "
        f"{ServerSpec.concurrency}); of a GGUF model: answers at once (default: "
        f"{GgufSpec.concurrency})",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS",
        help=f"of --server: how long one request may take (default: {ServerSpec.timeout:g})",
    )  # fmt: skip
    parser.add_argument(
        "--allow-http", action="store_const", const=True,
        help="of --server: send pictures to another machine unencrypted, by http",
    )  # fmt: skip
    parser.add_argument(
        "--picture-format", choices=PICTURE_FORMATS,
        help="of --server: how pictures are sent; jpeg takes a quarter of the bytes and a tenth of "
        f"the time to write, and is not exact (default: {ServerSpec.picture_format})",
    )  # fmt: skip


def add_roots(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument(
        "--root", action="append", metavar="DIR",
        help=f"{about}; may repeat (default: {DEFAULT_ROOT})",
    )  # fmt: skip


def spec_of(options: argparse.Namespace) -> Spec:
    """The model that the options name. Raises ``BadOption`` for options that do not go together
    and what the specs raise, ``CheckpointError`` where there is no such model here, and
    ``Unavailable`` for a GGUF model without a llama-server."""
    if options.server is not None:
        return _server_spec(options)
    if is_gguf(options.model):
        _refuse_given(options, set(_SERVING) - {"concurrency"})
        _refuse_loading(options, _OF_LLAMA_SERVER, "root")
        return gguf_spec(options, roots_of(options.root))
    _refuse_given(options, set(_NEEDS))
    return _local_spec(options)


def _server_spec(options: argparse.Namespace) -> ServerSpec:
    _refuse_given(options, set(_GGUF))
    elsewhere = (
        "--server names one that is loaded elsewhere: leave it out, and give it to the server"
    )
    _refuse_loading(options, elsewhere)
    serving = {field: getattr(options, name) for name, field in _SERVING.items()}
    given: dict[str, Any] = {name: value for name, value in serving.items() if value is not None}
    return ServerSpec(",".join(options.server), **given)  # type: ignore[arg-type]


def _refuse_given(options: argparse.Namespace, names: set[str]) -> None:
    for name, needed in _NEEDS.items():
        if name in names and getattr(options, name) is not None:
            raise BadOption(f"{_flag(name)} has a use only with {needed}.")


def _refuse_loading(options: argparse.Namespace, advice: str, but: str = "") -> None:
    """Refuses options of how a model is loaded here, except ``but``."""
    for name, unset in _unset().items():
        if name != but and getattr(options, name) != unset:
            raise BadOption(f"{_flag(name)} is about models that are loaded here, and {advice}.")


def named_spec_of(options: argparse.Namespace) -> Spec:
    """As ``spec_of``, for what depends on the model's name: a server is asked where only it knows.
    Raises ``ServerError`` too."""
    spec = spec_of(options)
    if not isinstance(spec, ServerSpec):
        return spec
    from ..backends.openai_server import with_model

    return with_model(spec)


def _unset() -> dict[str, Any]:
    loading = {name: default for name, (default, _) in _LOADING.items()}
    return {**loading, "yarn": 1.0, "trust_remote_code": False, "root": None, "lora": None}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _local_spec(options: argparse.Namespace) -> LocalSpec:
    name = BUNDLED_NAME if options.model is None else options.model
    return LocalSpec(
        str(checkpoint_of(name, options.root)),
        precision=options.precision,
        quantization=options.quantization,
        attention=options.attention,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
        optimize=options.optimize,
        adapters=adapters_of(options.lora, options.root),
        yarn=options.yarn,
    )
