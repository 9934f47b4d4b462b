"""Listen node: sounds to text, and answers spoken by models that can."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..qwenvl import run
from ..qwenvl.backends.base import Backend
from ..qwenvl.errors import BadAudio, BadOption
from ..qwenvl.listening import transcription
from ..qwenvl.query import Query
from ..qwenvl.tasks.listen import WANTED, listen
from ..qwenvl.types import Audio, Result, Task
from . import host, lists, panels, sockets
from .model import ModelHandle


class Listen(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Listen",
            display_name="Qwen-VL Listen",
            description="Listens to sounds with Qwen2.5-Omni or Qwen3-Omni: writes down what is "
            "said, describes what is heard, or answers; in text and, with a whole checkpoint, in "
            "speech.",
            search_aliases=["transcribe", "speech to text", "asr", "audio caption", "voice", "tts"],
            panels=panels.answer(height=110),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                sockets.Model.Input(
                    "model", tooltip="From the Qwen-VL Loader: a Qwen2.5-Omni or Qwen3-Omni model."
                ),
                io.Combo.Input(
                    "task",
                    options=list(WANTED),
                    default=WANTED[0],
                    tooltip="transcribe: the words that are spoken; long sounds are read part by "
                    "part. describe: all that is heard. ask: an answer to the prompt, or, where "
                    "that is empty, to what is said in the sound itself.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="Your own words, in place of the usual ones of the task.",
                ),
                sockets.seed(
                    "Equal seeds give equal answers, and equal speech. transcribe does not "
                    "depend on it but for its speech."
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="A sound of any rate, channels and length that the model hears, a "
                    "batch or a list of them; all are answered in one run. Without any, the prompt "
                    "alone is answered.",
                ),
                io.Boolean.Input(
                    "speak",
                    default=False,
                    tooltip="Also speak the answer. This loads the speaking half of the model, "
                    "which only whole checkpoints (Instruct) have, and answers one after another.",
                    optional=True,
                ),
                io.String.Input(
                    "voice",
                    default="",
                    tooltip="The name of one of the checkpoint's voices, such as Chelsie or Ethan. "
                    "Empty: its makers' default.",
                    **sockets.ADVANCED,
                ),
                io.String.Input(
                    "language",
                    default="",
                    tooltip="Of the speech that is transcribed, such as Chinese. Empty: any.",
                    **sockets.ADVANCED,
                ),
                sockets.max_new_tokens(32768),
                sockets.unanswered(
                    "When there is no answer (a sound is too short, memory runs out): stop "
                    "with an error that names the sound, or keep going without one for it."
                ),
            ],
            outputs=[
                io.String.Output("text", tooltip="One text a sound.", is_output_list=True),
                io.Audio.Output(
                    "speech",
                    tooltip="One spoken answer a sound; nothing where speak is off.",
                    is_output_list=True,
                ),
                sockets.complete("sound"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: list[ModelHandle],
        task: list[str],
        prompt: list[str],
        seed: list[int],
        audio: Any = None,
        speak: Any = False,
        voice: Any = "",
        language: Any = "",
        max_new_tokens: Any = 0,
        when_unreadable: Any = sockets.STOP,
    ) -> io.NodeOutput:
        asked = lists.mapped(
            _asked,
            model,
            task,
            prompt,
            seed,
            audio,
            speak,
            voice,
            language,
            max_new_tokens,
            when_unreadable,
        )
        speaks = [each.speaks for each in asked for _ in each.sounds]
        results = _answers(asked)
        return io.NodeOutput(
            [result.text for result in results],
            [_audio(*pair) for pair in zip(results, speaks, strict=True)],
            [result.is_complete for result in results],
            ui=host.results_ui(results),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """What one call of the node asks: ``task`` about each of ``sounds``."""

    model: ModelHandle
    task: Task
    sounds: Sequence[Audio | BadAudio | None]
    sampling: Mapping[str, Any]
    voice: str | None
    keep_going: bool

    def queries(self, backend: Backend) -> list[Query]:
        own = run.sampling_for(backend, self.task)
        return [
            Query(
                self.task,
                sound,
                sampling=dataclasses.replace(own, **self.sampling),
                method=transcription if self.task.name == WANTED[0] and not self.speaks else None,
                voice=self.voice,
                keep_unreadable=self.keep_going,
            )
            for sound in self.sounds
        ]

    @property
    def speaks(self) -> bool:
        return self.voice is not None


def _asked(
    model: ModelHandle,
    task: str,
    prompt: str,
    seed: int,
    audio: Any,
    speak: bool,
    voice: str,
    language: str,
    max_new_tokens: int,
    when_unreadable: str,
) -> _Asked:
    wanted = sockets.choice("task", task, WANTED)
    if audio is None and not prompt.strip():
        raise BadOption("There is nothing to answer: connect a sound, or write a prompt.")
    return _Asked(
        model,
        listen(wanted, sockets.words(prompt), sockets.words(language)),
        [None] if audio is None else _sounds(audio),
        {"seed": seed, **sockets.length(max_new_tokens)},
        sockets.words(voice) if speak else None,
        when_unreadable != sockets.STOP,
    )


def _sounds(audio: Any) -> list[Audio | BadAudio | None]:
    """Those of an AUDIO, or why it is none: that call alone has no answer."""
    from ..qwenvl.media.audio import from_waveform

    try:
        given = audio if isinstance(audio, Mapping) else {}
        return [*from_waveform(given.get("waveform"), given.get("sample_rate"))]
    except BadAudio as error:
        return [error]


def _answers(asked: Sequence[_Asked]) -> list[Result]:
    """One result a sound, in order; each model is asked once."""
    answers: dict[int, list[Result]] = {}
    for model in dict.fromkeys(each.model for each in asked):
        own = [(index, each) for index, each in enumerate(asked) if each.model == model]

        def queries(backend: Backend, own: Sequence[tuple[int, _Asked]] = own) -> list[Query]:
            return [query for _, each in own for query in each.queries(backend)]

        results = iter(model.run(queries, host.send_results, about="sound"))
        for index, each in own:
            answers[index] = [next(results) for _ in each.sounds]
    return [result for index in range(len(asked)) for result in answers[index]]


def _audio(result: Result, speaks: bool) -> Any:
    """An AUDIO; where there is no speech, what stops the nodes behind, and says why."""
    if result.speech is not None:
        return {"waveform": result.speech.samples[None], "sample_rate": result.speech.rate}
    if not speaks:
        why = "There is no speech: turn speak on in Qwen-VL Listen."
    elif result.error:
        why = f"There is no speech: {result.error}"
    else:
        why = " ".join(result.notes) or "There is no speech, since the answer is empty."
    return host.execution_blocker(why)
