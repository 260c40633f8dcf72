"""How an output video is encoded: the options, checked and completed.

Everything that can be known to be wrong is refused here, before a file is opened.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.codec.codec import Capabilities, UnknownCodecError, find_best_pix_fmt_of_list
from av.codec.context import CodecOption
from torch.backends.cpu import get_cpu_capability

from vsrm_cli.errors import OutputError, UsageError
from vsrm_cli.media.color import bit_depth, has_alpha
from vsrm_cli.media.hdr import HdrMetadata, hdr_parameters
from vsrm_cli.media.probe import VideoInfo

# Larger frames are refused by encoders, and beyond an area by FFmpeg (av_image_check_size).
_LARGEST_SIDES = {"libx264": (16384, 16384), "libsvtav1": (16384, 8704)}
_SIDE_MARGIN, _LARGEST_AREA = 128, 2**31 // 8
# What people call a codec, and the encoders that make it, best first.
_ENCODERS = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "h265": ("libx265",),
    "av1": ("libsvtav1", "libaom-av1", "librav1e"),
    "vp9": ("libvpx-vp9",),
    "vp8": ("libvpx",),
    "prores": ("prores_ks",),
}
# Few players decode H.264 of more than 8 bits, and all of today's decode such HEVC. x265 writes
# beyond its memory for smaller frames, and SVT-AV1 refuses them.
_HEVC_CONTAINERS = {".mp4", ".m4v", ".mov", ".mkv"}
_LEAST_HEVC, _LEAST_AV1 = (64, 32), (64, 64)
# Nearly without visible loss: the details were expensive.
_DEFAULT_CRF = {"libx264": 17, "libx265": 19, "libsvtav1": 27, "libaom-av1": 24, "libvpx-vp9": 24}
# Of NVIDIA's encoders a constant quantizer; left alone they share out two megabits a second.
_DEFAULT_QP = {"h264_nvenc": 19, "hevc_nvenc": 21, "av1_nvenc": 90}
# These encoders take any number and fail later.
_LARGEST_CRF = {"libx264": 51, "libx264rgb": 51, "libx265": 51}
_X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_PARAMETER_LISTS = {
    "libx264": "x264-params",
    "libx265": "x265-params",
    "libsvtav1": "svtav1-params",
}
# Their options for chroma that is sited at the left one of two pixels.
_LEFT_SITING = {
    "libx264": ("chromaloc", "0"),
    "libx265": ("chromaloc", "0"),
    "libsvtav1": ("chroma-sample-position", "left"),
}
# x264's AVX-512 code reads past its buffers if the width is not a multiple of 128, and uses what it
# reads to weigh macroblocks: the output changed from process to process. All CPUs with AVX-512 have
# these instructions, too.
_X264_INSTRUCTIONS = "SSE2Fast,SSSE3,SSE4.2,AVX,AVX2,FMA3,BMI2,LZCNT"
_PIXEL_SHAPE_CODECS = {"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"}
_MPEG4_TICKS_PER_SECOND = 65535
# Players expect 4:2:0 chroma of these.
_DELIVERY_CODECS = {"h264", "hevc", "av1", "vp9", "vp8"}


@dataclass(frozen=True, slots=True)
class EncodingOptions:
    """How the output video is to be encoded.

    Attributes:
        codec: h264, hevc, av1, ffv1, or the name of any encoder of the build; "auto" is for
            `choose_codec`.
        crf: Constant quality, smaller is better and larger; None for our default.
        preset: Speed against size, by the encoder's own names; None for its default.
        pixel_format: FFmpeg's name, or "auto" to keep the bit depth of the source.
    """

    codec: str = "h264"
    crf: int | None = None
    preset: str | None = None
    pixel_format: str = "auto"


@dataclass(frozen=True, slots=True)
class EncodingPlan:
    """An encoding that can work.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        codec: FFmpeg's name of the codec.
        pixel_format: Of the frames that it gets.
        options: Its private options.
    """

    encoder: str
    codec: str
    pixel_format: str
    options: dict[str, str]

    @property
    def crf_above_default(self) -> int:
        """How much the crf is above our default; 0 if there is none."""
        default = _DEFAULT_CRF.get(self.encoder)
        return 0 if default is None else int(self.options.get("crf", default)) - default


def choose_codec(
    encoding: EncodingOptions, suffix: str, *, bits: int, size: tuple[int, int]
) -> EncodingOptions:
    """Take the codec that plays in most places, where the user leaves it open.

    Args:
        encoding: The options.
        suffix: The end of the output's name.
        bits: Of the source, per component.
        size: Width and height of the output, in pixels.
    """
    if encoding.codec != "auto":
        return encoding
    codec = "h264"
    if suffix.lower() == ".webm":
        codec = "av1" if _is_at_least(size, _LEAST_AV1) else "vp9"
    elif bits > 8 and suffix.lower() in _HEVC_CONTAINERS and _is_at_least(size, _LEAST_HEVC):
        codec = "hevc"
    return replace(encoding, codec=codec)


def _is_at_least(size: tuple[int, int], least: tuple[int, int]) -> bool:
    return size[0] >= least[0] and size[1] >= least[1]


def plan_encoding(
    encoding: EncodingOptions, source_format: str, *, hdr: HdrMetadata | None = None
) -> EncodingPlan:
    """Check an encoding and fill in what it leaves open.

    Args:
        encoding: The options.
        source_format: The pixel format of the source, whose depth is kept.
        hdr: Static HDR metadata to write, if the encoder can.

    Raises:
        UsageError: If a value can never work; the message says which would.
    """
    encoder = _find_encoder(encoding.codec)
    known = {option.name: option for option in encoder.create().supported_options.private}
    options = _quiet_options(encoder.name) | _parameters(encoder.name, hdr)
    if encoder.name in _DEFAULT_QP:
        options |= _quantizer_options(encoding, encoder.name, int(known["qp"].max))
    else:
        options |= _crf_options(encoding, encoder.name, known.get("crf"))
    options |= _preset_options(encoding, encoder.name, known.get("preset"))
    accepted = [f.name for f in encoder.video_formats or ()]
    if encoding.pixel_format == "auto":
        pixel_format = _automatic_format(encoder.canonical_name, accepted, source_format)
    else:
        pixel_format = _checked_format(encoding, accepted)
    return EncodingPlan(encoder.name, encoder.canonical_name, pixel_format, options)


def stores_pixel_shape(plan: EncodingPlan) -> bool:
    """Whether a codec itself says how wide a pixel is; PyAV 18 cannot tell it to a container."""
    return plan.codec in _PIXEL_SHAPE_CODECS


def find_lost_metadata(source: VideoInfo, plan: EncodingPlan, pixel: Fraction | None) -> list[str]:
    """List metadata of the source's frames that the output cannot store, and why.

    Args:
        source: The source.
        plan: How the output is encoded.
        pixel: The shape that its pixels should have, width over height.
    """
    losses = list(source.dropped)
    if source.bits > bit_depth(plan.pixel_format):
        losses.append(
            f"bit depth: {source.bits} bits become {bit_depth(plan.pixel_format)} in "
            f"{plan.encoder}; another --codec or --pix-fmt may keep them"
        )
    if pixel is not None and pixel != 1 and not stores_pixel_shape(plan):
        losses.append(
            f"the shape of pixels, {pixel.numerator}:{pixel.denominator}: {plan.encoder} cannot "
            "store it, so they are made square"
        )
    if source.hdr is not None and not hdr_parameters(plan.encoder, source.hdr):
        losses.append(f"HDR metadata of the mastering display: {plan.encoder} cannot store them")
    return losses


def check_limits(plan: EncodingPlan, *, size: tuple[int, int], time_base: Fraction) -> None:
    """Refuse what an encoder would fail at, or worse.

    Args:
        plan: How to encode.
        size: Width and height, in pixels.
        time_base: The clock of the times of frames, in seconds.

    Raises:
        OutputError: If the encoder cannot do it; names another.
    """
    width, height = size
    area = (width + _SIDE_MARGIN) * (height + _SIDE_MARGIN)
    if area >= _LARGEST_AREA or not _is_at_least(_LARGEST_SIDES.get(plan.encoder, size), size):
        raise OutputError(
            f"{plan.encoder} cannot encode frames as large as {width}x{height}; give --height "
            "2160, or a smaller --scale."
        )
    if plan.encoder == "libx265" and not _is_at_least(size, _LEAST_HEVC):
        raise OutputError(
            f"x265 cannot encode frames as small as {width}x{height}; "
            "choose another --codec, such as h264."
        )
    if plan.codec == "mpeg4" and time_base.denominator > _MPEG4_TICKS_PER_SECOND:
        raise OutputError(
            f"MPEG-4 Part 2 counts at most {_MPEG4_TICKS_PER_SECOND} ticks per second, too few "
            "for the times of this video; choose another --codec, such as h264."
        )


def _find_encoder(name: str) -> av.Codec:
    for candidate in _ENCODERS.get(name, (name,)):
        try:
            encoder = av.Codec(candidate, "w")
        except UnknownCodecError:
            continue
        if encoder.type == "video" and not encoder.capabilities & Capabilities.experimental:
            return encoder
    raise UsageError(
        f"There is no video encoder named {name!r} here; choose h264, hevc, av1, vp9, ffv1, "
        "prores, or another encoder of FFmpeg."
    )


def _quiet_options(encoder: str) -> dict[str, str]:
    """Options that keep libraries from writing onto the terminal on their own."""
    if encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # it has no option for this, only a variable
    if encoder == "libvpx-vp9":
        return {"row-mt": "1", "cpu-used": "2"}  # its own default is ten times slower
    return {}


def _parameters(encoder: str, hdr: HdrMetadata | None) -> dict[str, str]:
    """Parameters of libraries that have an option of their own for them."""
    option = _PARAMETER_LISTS.get(encoder)
    if option is None:
        return {}
    listed = dict([_LEFT_SITING[encoder]])
    if encoder == "libx264" and get_cpu_capability() == "AVX512":
        listed["asm"] = _X264_INSTRUCTIONS
    if encoder == "libx265":
        listed["log-level"] = "none"  # else it fills the terminal
    if hdr is not None:
        listed |= hdr_parameters(encoder, hdr)
    return {option: ":".join(f"{k}={v}" for k, v in listed.items())} if listed else {}


def _crf_options(
    encoding: EncodingOptions, encoder: str, option: CodecOption | None
) -> dict[str, str]:
    if option is None:
        if encoding.crf is not None:
            raise UsageError(f"The codec {encoding.codec} has no crf; leave --crf out.")
        return {}
    _check_crf(encoding, _LARGEST_CRF.get(encoder, int(option.max)))
    crf = _DEFAULT_CRF.get(encoder) if encoding.crf is None else encoding.crf
    return {} if crf is None else {"crf": str(crf)}


def _quantizer_options(encoding: EncodingOptions, encoder: str, largest: int) -> dict[str, str]:
    """The same for NVIDIA's encoders, whose scale is that of their quantizer."""
    _check_crf(encoding, largest)
    qp = _DEFAULT_QP[encoder] if encoding.crf is None else encoding.crf
    return {"rc": "constqp", "qp": str(qp)}


def _check_crf(encoding: EncodingOptions, largest: int) -> None:
    if encoding.crf is not None and not 0 <= encoding.crf <= largest:
        raise UsageError(
            f"A crf of {encoding.crf} is out of range for {encoding.codec}; choose one from 0 "
            f"(best) to {largest}."
        )


def _preset_options(
    encoding: EncodingOptions, encoder: str, option: CodecOption | None
) -> dict[str, str]:
    preset = encoding.preset
    if preset is None:
        return {}
    if option is None:
        raise UsageError(f"The codec {encoding.codec} has no presets; leave --preset out.")
    if encoder.startswith(("libx264", "libx265")):
        choices = list(_X26X_PRESETS)
    elif option.choices:
        choices = [choice.name for choice in option.choices]
    else:
        choices = [str(number) for number in range(int(option.min), int(option.max) + 1)]
    if preset not in choices:
        raise UsageError(
            f"{encoding.codec} has no preset {preset!r}; choose one of {', '.join(choices)}."
        )
    return {"preset": preset}


def _automatic_format(codec: str, accepted: list[str], source_format: str) -> str:
    """The format that keeps the depth of the source, and what else the codec can keep."""
    bits = bit_depth(source_format)
    if codec in _DELIVERY_CODECS:
        wanted = [f"yuv420p{bits}le", "yuv420p10le"] if bits > 8 else []
        if bits > 8 and codec != "h264":  # NVIDIA's name for it, which its H.264 cannot store
            wanted.append("p010le")
        for name in [*wanted, "yuv420p"]:
            if name in accepted:
                return name
    plain = [name for name in accepted if not has_alpha(name) and "f32" not in name]
    best, _ = find_best_pix_fmt_of_list(plain or ["yuv420p"], source_format)
    return best.name if best is not None else "yuv420p"


def _checked_format(encoding: EncodingOptions, accepted: list[str]) -> str:
    name = encoding.pixel_format
    try:
        av.VideoFormat(name)
    except ValueError:
        raise UsageError(f"There is no pixel format {name!r}; choose auto or yuv420p.") from None
    if accepted and name not in accepted:
        raise UsageError(
            f"The codec {encoding.codec} cannot store {name}; choose auto or one of "
            f"{', '.join(accepted)}."
        )
    return name
