"""Published PSNR and SSIM of networks of scale 4.

REDS4 is measured on RGB, the others on Y; BI is MATLAB's bicubic, BD a Gaussian of 1.6 pixels.
The figures are from the papers' tables, as shown in their repositories: VSRM
(figures/performance.png), RVRT (assets/vsr.jpg), PSRT (assets/Results.png) and IART (results.png).
They were not measured by this project. Training sets differ: the figures of one line may belong to
two sets of weights.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedScore:
    """One figure of a paper.

    Attributes:
        model: The network, and in brackets the number of training frames for REDS and Vimeo-90K.
        psnr: In dB.
        ssim: 0 to 1.
        source: The paper of the network.
    """

    model: str
    psnr: float
    ssim: float
    source: str


# Of each network: the name to show and its paper.
_PAPERS = {
    "Bicubic": ("Bicubic", "as quoted in the papers below"),
    "EDVR": ("EDVR (5/7)", "arXiv:1905.02716"),
    "BasicVSR": ("BasicVSR (15/14)", "arXiv:2012.02181"),
    "BasicVSR++": ("BasicVSR++ (30/14)", "arXiv:2104.13371"),
    "VRT": ("VRT (16/7)", "arXiv:2201.12288"),
    "RVRT": ("RVRT (30/14)", "arXiv:2206.02146"),
    "PSRT": ("PSRT-recurrent (16/14)", "arXiv:2207.08494"),
    "IART": ("IART (16/7)", "arXiv:2305.00163"),
    "VSRM": ("VSRM (16/7)", "arXiv:2506.22762"),
}

_FIGURES: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("REDS4", "bi"): {
        "Bicubic": (26.14, 0.7292),
        "EDVR": (31.09, 0.8800),
        "BasicVSR": (31.42, 0.8909),
        "BasicVSR++": (32.39, 0.9069),
        "VRT": (32.19, 0.9006),
        "RVRT": (32.75, 0.9113),
        "PSRT": (32.72, 0.9106),
        "IART": (32.90, 0.9138),
        "VSRM": (33.11, 0.9162),
    },
    ("Vimeo-90K-T", "bi"): {
        "Bicubic": (31.32, 0.8684),
        "EDVR": (37.61, 0.9489),
        "BasicVSR": (37.18, 0.9450),
        "BasicVSR++": (37.79, 0.9500),
        "VRT": (38.20, 0.9530),
        "RVRT": (38.15, 0.9527),
        "PSRT": (38.27, 0.9536),
        "IART": (38.14, 0.9528),
        "VSRM": (38.33, 0.9543),
    },
    ("Vid4", "bi"): {
        "Bicubic": (23.78, 0.6347),
        "EDVR": (27.35, 0.8264),
        "BasicVSR": (27.24, 0.8251),
        "BasicVSR++": (27.79, 0.8400),
        "VRT": (27.93, 0.8425),
        "RVRT": (27.99, 0.8462),
        "PSRT": (28.07, 0.8485),
        "IART": (28.26, 0.8517),
        "VSRM": (28.44, 0.8552),
    },
    ("UDM10", "bd"): {
        "Bicubic": (28.47, 0.8253),
        "EDVR": (39.89, 0.9686),
        "BasicVSR": (39.96, 0.9694),
        "BasicVSR++": (40.72, 0.9722),
        "VRT": (41.05, 0.9737),
        "RVRT": (40.90, 0.9729),
        "IART": (41.15, 0.9750),
    },
    ("Vimeo-90K-T", "bd"): {
        "Bicubic": (31.30, 0.8687),
        "EDVR": (37.81, 0.9523),
        "BasicVSR": (37.53, 0.9498),
        "BasicVSR++": (38.21, 0.9550),
        "VRT": (38.72, 0.9584),
        "RVRT": (38.59, 0.9576),
        "IART": (38.62, 0.9579),
    },
    ("Vid4", "bd"): {
        "Bicubic": (21.80, 0.5246),
        "EDVR": (27.85, 0.8503),
        "BasicVSR": (27.96, 0.8553),
        "BasicVSR++": (29.04, 0.8753),
        "VRT": (29.42, 0.8795),
        "RVRT": (29.54, 0.8810),
        "IART": (29.68, 0.8884),
    },
}


def published_scores(set_name: str, degradation: str) -> list[PublishedScore]:
    """Published scores for a test set; none if it is not one of the literature.

    Args:
        set_name: "REDS4", "Vid4", "Vimeo-90K-T" or "UDM10".
        degradation: As in `vsrm_cli.evaluation.test_sets.make_lr_clip`.
    """
    return [
        PublishedScore(_PAPERS[name][0], psnr, ssim, _PAPERS[name][1])
        for name, (psnr, ssim) in _FIGURES.get((set_name, degradation), {}).items()
    ]
