# SPDX-License-Identifier: Apache-2.0
"""What numbers of settings may be, so that a percentage or a slip of the sign is told before hours of training."""


def check_shares(settings: object, *names: str) -> None:
    """Raise ValueError where one of these attributes is not in 0..1."""
    for name in names:
        if not 0 <= (value := getattr(settings, name)) <= 1:  # NaN is in no range
            raise ValueError(f"{name} is a share and must be in 0..1, not {value}")


def check_not_negative(settings: object, *names: str) -> None:
    """Raise ValueError where one of these attributes is less than 0."""
    for name in names:
        if not (value := getattr(settings, name)) >= 0:
            raise ValueError(f"{name} must be 0 or more, not {value}")
