"""The video command, about files that show their frames' numbers."""

from __future__ import annotations

import pytest
import videos
from qwen_vl_suite.qwenvl.errors import BadOption

BOX = '[{"bbox_2d": [0, 0, 500, 500], "label": "ball"}]'


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return videos.write(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=48, rate=12)


def test_a_line_a_video_and_one_that_fails_alone(run, model, clip, tmp_path):
    backend = model(BOX, "[]", BOX, BOX)
    gone = tmp_path / "gone.mp4"
    status, rows, err = run(
        "video", gone, clip, "--track", "ball", "--every", "1", "--gaps", "leave", "--json"
    )
    assert status == 1 and backend.batches == [4]
    assert "gone.mp4" in rows[0]["error"] and rows[0]["times"] == []
    assert rows[1]["video"] == str(clip) and rows[1]["times"] == [0.0, 1.0, 2.0, 3.0]
    assert [entry["source"] for entry in rows[1]["data"]] == ["seen", "missing", "seen", "seen"]
    assert rows[1]["events"] == [
        {"start": 0.0, "end": 1.0, "label": "ball"},
        {"start": 2.0, "end": 3.0, "label": "ball"},
    ]
    assert f"{clip}: 4 frames, " in err and " tokens" in err


def test_clips_of_events_are_written(run, model, clip, tmp_path):
    import av

    model(BOX)
    status, _, err = run(
        "video", clip, "--track", "ball", "--frames", "2", "--clips", tmp_path / "out"
    )
    assert status == 0
    (written,) = (tmp_path / "out").iterdir()
    assert str(written) in err
    with av.open(str(written)) as container:
        assert 40 <= sum(1 for _ in container.decode(video=0)) <= 48


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gaps", "leave"], "--gaps has a use only with --track"),
        (["--track", "x", "--style", "tags"], "--style has a use only with"),
        (["--segment", "3"], "--segment has a use only with --dense"),
        (["--ask", "What?", "--clips", "out"], "--clips has a use only with --events"),
        (["--ask", " "], "--ask is empty"),
        (["--dense", "--segment", "-1"], "Segments of -1 s"),
        (["--fps", "0"], "fps of a video is 0"),
        (["--track", "x", "--sound"], "--sound has a use only with anything but --track"),
        (["--track", " , "], "Nothing to find was named"),
        (["--styles-folder", "none"], "--styles-folder names none, which is no folder"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_a_model_is_loaded(
    run, model, clip, options, said
):
    backend = model(BOX)
    status, _, err = run("video", clip, *options)
    assert status == 2 and said in err and not backend.specs


def test_videos_are_heard_where_that_is_asked_for(run, model, tmp_path):
    loud = videos.write(tmp_path / "loud.mp4", frames=24, rate=12, sound=True)
    backend = model("A tone.", family="qwen3_omni_moe")
    for options, sounds in ([], 0), (["--sound"], 1):
        status, _, _ = run("video", loud, "--ask", "What is heard?", *options)
        assert status == 0 and len(backend.requests[-1].sounds) == sounds
    model("A tone.", family="qwen3_vl")
    status, _, err = run("video", loud, "--sound")
    assert status == 2 and "Qwen3-VL hears nothing" in err


def test_clips_leave_what_is_there_and_one_that_fails_costs_no_other(
    run, model, clip, tmp_path, monkeypatch
):
    from qwen_vl_suite.qwenvl.errors import BadVideo
    from qwen_vl_suite.qwenvl.media import video_writing

    other = tmp_path / "clip-001.mp4"  # would be written over by the clips of clip.mp4
    content = clip.read_bytes()
    for path in (tmp_path / "clip.mp4", other):
        path.write_bytes(content)
    cut = video_writing.cut

    def failing(source, start, end, out):
        cut(source, start, end, out)
        if out.name.startswith("clip-001-"):
            raise BadVideo(f"{source.title} is damaged.")

    monkeypatch.setattr(video_writing, "cut", failing)
    model(BOX)
    files = [other, tmp_path / "clip.mp4", clip]
    status, _, err = run("video", *files, "--track", "ball", "--frames", "2", "--clips", tmp_path)
    assert status == 1 and other.read_bytes() == content
    assert err.count("error: ") == 1 and f"error: {other} is damaged." in err
    names = {"clip.mp4", "clip-001.mp4", "clip-002.mp4", "clip-003.mp4"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_number_of_frames_is_bounded_where_that_is_asked_for(run, model, clip):
    model("a clip")
    values = ["--frames", "5", "--json"]
    _, (row,), _ = run("video", clip, *values)
    assert len(row["times"]) == 5
    _, (row,), _ = run("video", clip, *values, "--max-frames", "3")
    assert len(row["times"]) == 3


def test_the_tokens_of_a_video_are_bounded_where_that_is_asked_for(run, model, clip):
    model("a clip")
    for options, said in ([], "8 frames, 24 tokens"), (["12"], "8 frames, 8 tokens"):
        more = ["--max-video-tokens", *options] if options else []
        status, _, err = run("video", clip, *more)
        assert status == 0 and said in err
    status, _, err = run("video", clip, "--max-video-tokens", "3")
    assert status == 2 and "8 frames take 4 tokens at the least" in err


def test_how_much_to_think_reaches_the_model(run, model, clip):
    backend = model("a clip")
    assert run("video", clip, "--reasoning-effort", "low")[0] == 0
    assert [asked.reasoning_effort for asked in backend.requests] == ["low"]


def test_videos_that_are_refused_together_are_told_of_once(run, model, clip):
    backend = model("Never.")
    backend._replay_of = lambda request: BadOption("The prompt is too long.")
    status, rows, err = run("video", *[clip] * 5, "--json")
    assert (status, len(rows)) == (2, 4) and err.endswith("stopped after 4 of 5\n")
    assert err.count(" frames, ") == 4
