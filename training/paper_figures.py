# SPDX-License-Identifier: Apache-2.0
"""The figures that the paper gives (Tables 1-5 of papers' "Sequential Amodal Segmentation"), in percent, of its own datasets."""

ACOM = ((57.1, 57.8), (44.8, 45.4), (28.8, 30.0), (12.2, 14.2), (1.9, 3.6))  # without noise, K = 3; it stands in three tables

# IOU and AP of layers 1-5 on ACOM, for K hypotheses
TABLE_1 = {
    3: ACOM,
    5: ((56.7, 57.5), (44.3, 44.9), (28.8, 29.7), (12.7, 14.3), (2.3, 3.7)),
    7: ((56.8, 57.5), (44.7, 45.4), (29.4, 30.0), (12.6, 14.1), (2.6, 3.6)),
    9: ((56.9, 57.7), (44.4, 45.1), (29.5, 30.2), (12.9, 14.2), (2.4, 3.7)),
}

# AP of layers 1-5 on ACOM
TABLE_2 = {"mean mask": (57.7, 43.1, 27.9, 10.4, 2.8), "selected mask": (57.8, 45.4, 30.0, 14.2, 3.6)}

# IOU and AP of layers 1-5 on ACOM, by the ratio of noise introduction
TABLE_3 = {
    0.0: ACOM,
    0.05: ((50.3, 51.7), (35.5, 37.5), (21.9, 24.6), (7.9, 10.7), (1.9, 3.3)),
    0.1: ((55.8, 56.6), (43.2, 44.1), (26.8, 28.0), (10.3, 12.1), (2.2, 3.4)),
    0.15: ((55.3, 56.0), (38.8, 40.2), (22.4, 24.9), (8.0, 10.3), (1.7, 3.2)),
    0.2: ((56.9, 57.6), (39.2, 40.3), (20.8, 23.5), (6.5, 9.2), (1.0, 2.9)),
}

# IOU and AP of layers 1-5: dataset -> with a model for each layer (DIS), and with cumulative learning
TABLE_4 = {
    "Intra-AFruit": (
        ((89.5, 90.7), (81.6, 82.6), (52.4, 52.6), (9.8, 12.4), (0.5, 2.0)),
        ((94.3, 94.7), (87.4, 88.2), (76.2, 77.3), (26.7, 27.6), (7.2, 7.4)),
    ),
    "ACOM": (
        ((31.6, 34.8), (26.6, 28.7), (1.6, 10.2), (0.2, 6.0), (0.1, 2.5)),
        ACOM,
    ),
    "MUVA": (
        ((68.2, 71.5), (19.3, 27.3), (0.1, 8.6), (0.2, 3.4), (0.0, 0.5)),
        ((77.0, 79.3), (48.7, 51.2), (25.4, 27.8), (8.5, 9.9), (1.0, 1.1)),
    ),
}

# AP with and without layer; None where a method tells no layer
TABLE_5: dict[str, dict[str, tuple[float | None, float]]] = {
    "PointRend": {"Intra-AFruit": (None, 70.9), "ACOM": (None, 22.0), "MUVA": (None, 38.9)},
    "AISFormer": {"Intra-AFruit": (None, 70.4), "ACOM": (None, 34.9), "MUVA": (None, 49.7)},
    "PLIn": {"Intra-AFruit": (42.2, 78.9), "ACOM": (3.9, 17.0), "MUVA": (16.3, 47.3)},
    "paper": {"Intra-AFruit": (84.6, 92.6), "ACOM": (45.4, 65.5), "MUVA": (53.1, 55.7)},
}
