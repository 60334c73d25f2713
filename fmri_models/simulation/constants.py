"""Every number of the simulated brain, with where it comes from.

They were chosen from the literature before any decoder was tuned on simulated data. A change moves every figure that
was measured on it: name it in CHANGELOG with figures before and after, and raise `VERSION`.
"""

from dataclasses import dataclass

VERSION = 2
"""Stored in every simulated table; two tables are comparable when it is equal."""

# ---------------------------------------------------------------------------------------------------------------------
# What the eye sees. NSD showed its pictures 8.4 degrees wide around the fixation point (Allen et al. 2022).

PICTURE_DEGREES = 8.4
EYE_SIZE = 64
"""Pictures of any size are brought to this many pixels a side for the brain (the table keeps the original)."""
GRID = 16
"""Receptive fields pool energy on GRID x GRID cells of half a degree, no more than the smallest field's sigma or so."""

# ---------------------------------------------------------------------------------------------------------------------
# Anatomy. Half of the voxels lie in retinotopic areas, half in higher ones, as in NSD's `nsdgeneral`, whose streams
# `ventral`, `lateral` and `parietal` give the higher areas their names.


@dataclass(frozen=True)
class EarlyArea:
    """A retinotopic area.

    Receptive field size grows linearly with eccentricity, faster in later areas (Dumoulin and Wandell 2008; Amano et
    al. 2009; Kay et al. 2013). The exponent is the compressive summation of Kay et al. 2013, stronger in later areas.
    It acts on energy (squared amplitude): at .5 a response grows linearly with contrast and compressively with area.
    """

    name: str
    share: float
    size_at_fovea: float
    size_slope: float
    exponent: float
    frequency_scale: float
    orientation_depth: float
    colour_share: float
    mean_ceiling: float


@dataclass(frozen=True)
class HigherArea:
    """An area that reads what is in the picture; `gains` say how much it cares about which factor of a scene."""

    name: str
    share: float
    center: tuple[float, float, float]
    gains: dict[str, float]
    mean_ceiling: float


# Shares are of the early half, and of the higher half. Sizes: sigma in degrees, and degrees a degree of eccentricity.
EARLY_AREAS = (
    EarlyArea("V1", 0.34, 0.40, 0.14, 0.50, 1.00, 0.8, 0.40, 0.360),
    EarlyArea("V2", 0.28, 0.45, 0.18, 0.45, 0.80, 0.7, 0.45, 0.350),
    EarlyArea("V3", 0.22, 0.50, 0.25, 0.40, 0.65, 0.6, 0.40, 0.340),
    EarlyArea("V4", 0.16, 0.60, 0.40, 0.35, 0.55, 0.5, 0.60, 0.330),
)
# Ventral areas prefer what a thing is and its colour, lateral ones what it is and how large, parietal ones where it is
# (Kravitz et al. 2011, 2013; Konkle and Oliva 2012). Factors that are not named have gain 1.
HIGHER_AREAS = (
    HigherArea(
        "ventral",
        0.40,
        (38.0, -58.0, -14.0),
        {"kind": 1.3, "colour": 1.0, "ground": 0.8, "time_of_day": 0.7, "size": 0.6, "place": 0.6},
        0.320,
    ),
    HigherArea(
        "lateral",
        0.40,
        (46.0, -72.0, 4.0),
        {"kind": 1.3, "size": 0.9, "place": 0.8, "colour": 0.6, "ground": 0.6, "time_of_day": 0.5},
        0.310,
    ),
    HigherArea(
        "parietal",
        0.20,
        (24.0, -66.0, 46.0),
        {"place": 1.3, "size": 1.0, "kind": 0.7, "ground": 0.6, "time_of_day": 0.5, "colour": 0.4},
        0.250,
    ),
)
EARLY_SHARE = 0.5
VOXEL_COUNT_SPREAD = 0.10
"""Subjects after the first have up to this share of voxels more or fewer (NSD's eight: 12,682 to 17,907)."""

# Cortical magnification: 17.3 mm / (eccentricity + 0.75 degrees) (Horton and Hoyt 1991).
MAGNIFICATION_MM = 17.3
MAGNIFICATION_HALF_DEGREES = 0.75
CENTER_LIMIT_DEGREES = 4.5
"""Receptive field centers lie in a square of this half-width: the picture and a little beyond its edge."""
SIZE_JITTER = 0.15
"""Standard deviation of the logarithm of the receptive field's size."""
POSITION_JITTER_MM = 1.0
HIGHER_RADIUS_MM = 12.0

# ---------------------------------------------------------------------------------------------------------------------
# Early areas: Gabor energy (Adelson and Bergen 1985; Kay et al. 2008: eight orientations, an octave of bandwidth).

FREQUENCIES = (2.0, 4.0, 8.0, 16.0)
"""Cycles a picture: 0.24 to 1.9 cycles a degree."""
ORIENTATIONS = 8
RELATIVE_BANDWIDTH = 0.283
"""Sigma of a Gabor in the frequency plane over its frequency: one octave at half height."""
CHROMATIC_FREQUENCIES = (2.0, 4.0)
"""Colour contrast is seen at low frequencies (Mullen 1985)."""

# Preferred period of a V1 voxel is 0.12 x eccentricity + 0.35 degrees and its tuning some two octaves wide (Broderick
# et al. 2022); later areas prefer lower frequencies (Henriksson et al. 2008), `frequency_scale` above.
PERIOD_SLOPE = 0.12
PERIOD_AT_FOVEA = 0.35
FREQUENCY_SIGMA_OCTAVES = 0.9
FREQUENCY_JITTER_OCTAVES = 0.7
TUNING_JITTER = 0.5
"""Standard deviation of the logarithm of a voxel's weight for a channel, beside its smooth tuning."""

# The areas' `colour_share`: V1 answers to isoluminant colour as strongly as to luminance, or more so (Engel, Zhang and
# Wandell 1997; Mullen et al. 2007), and V4 more than V1 to V3.
HUE_WEIGHT = 3.0
"""Weight of a surface's hue against those of colour contrast and of brightness in a voxel's colour share."""
COLOUR_CONCENTRATION = 2.0
"""Beta concentration (a + b) of the share of colour and brightness over the voxels of an area, around the area's
`colour_share`: colour cells come in clusters (Conway, Moeller and Tsao 2007), so some voxels see hardly anything else.
Each voxel prefers a hue; patterns of V1 to V4 tell hues apart (Brouwer and Heeger 2009)."""

# ---------------------------------------------------------------------------------------------------------------------
# Higher areas: features through a fixed two-layer random network.

FEATURE_SEED = 20_220_101
"""The network and its inputs are the species': equal in all subjects and for every seed of the simulator."""
FEATURE_WIDTH = 192
HIDDEN_WIDTH = 512
INTERACTION_GAIN = 0.35
"""Weight of a pair of factors (a red car is more than red and car) against the factors themselves."""
HIGHER_EXPONENT = 0.5
TOPOGRAPHIC_SHARE = 0.5
"""Share of a higher voxel's weights that varies smoothly over cortex (Haxby et al. 2001; Huth et al. 2012)."""
TOPOGRAPHY_MM = 10.0
CONVOLUTION_WIDTHS = (32, 64, 128)
WHITENED_WIDTH = 96

# ---------------------------------------------------------------------------------------------------------------------
# Noise ceilings: ncsnr^2 / (ncsnr^2 + 1/3) of a voxel is Beta distributed with the area's mean and this concentration
# (a + b): right-skewed, median .3, a tail to .8, the shape of NSD's maps (Allen et al. 2022; Prince et al. 2022). The
# areas' means give .325 over all voxels.

CEILING_REPETITIONS = 3
CEILING_CONCENTRATION = 4.3
CEILING_LIMIT = 0.85

# Shares of a voxel's noise variance that other voxels have too: mean over voxels of the shares.
GLOBAL_SHARE = 0.05
ROI_SHARE = 0.05
SMOOTH_SHARE = 0.08
SIGNAL_SPACE_SHARE = 0.12
"""Noise that looks like the response to other stimuli: correlations of this kind limit what any number of voxels tells
(Averbeck, Latham and Pouget 2006; Moreno-Bote et al. 2014)."""
SIGNAL_SPACE_STRENGTH = 0.54
"""Variance of that noise over the signal's, in every voxel whose noise ceiling leaves room for it: what gives the
share. The ratio must be the same in all voxels: where it differs, a decoder can tell the two apart."""
SHARED_SHARE = GLOBAL_SHARE + ROI_SHARE + SMOOTH_SHARE + SIGNAL_SPACE_SHARE
SIGNAL_SPACE_STIMULI = 6
"""Training stimuli whose responses are mixed in a trial."""
SIGNAL_SPACE_POOL = 2048
"""Training stimuli of a subject that they are drawn from, at most: bounds memory."""
SHARE_SHAPE = 4.0
"""Gamma shape of the global and the ROI share over voxels; they are at most three times their mean."""
SMOOTH_MM = 8.0
SMOOTH_COMPONENTS = 256

OFFSET_SHARE = 0.03
"""Share of the noise variance that is a voxel's offset in a session."""

# Per trial, four seconds apart, after single-trial estimation: physiology and arousal run on longer than thermal noise.
SHARED_AUTOCORRELATION = 0.5
INDEPENDENT_AUTOCORRELATION = 0.2
CARRY_OVER = 0.15
"""Mean over voxels of the fraction of the previous trial's response that is still there."""
CARRY_OVER_SPREAD = 0.05

GAIN_SPREAD = 0.10
"""Standard deviation over sessions of a voxel's response gain."""
DRIFT_RADIANS = 0.15
"""Standard deviation over sessions of the angle by which tuning has rotated (Roth and Merriam 2023 found it in NSD)."""
MIN_INDEPENDENT_SHARE = 0.2

# Betas in percent signal change: standard deviation over trials and mean of a voxel, NSD's order of magnitude.
BETA_STD = 1.5
BETA_STD_SPREAD = 0.3
BETA_MEAN = 0.8
BETA_MEAN_SPREAD = 0.6

# ---------------------------------------------------------------------------------------------------------------------
# Design: NSD's sessions of 750 trials in 12 runs of 62 or 63; a tenth of the training pictures is seen by all subjects
# (NSD: 1,000 of 10,000), beside all validation and test pictures.

TRIALS_PER_SESSION = 750
TRIALS_PER_RUN = 63
MIN_SESSIONS = 3
SHARED_TRAIN_SHARE = 0.10
