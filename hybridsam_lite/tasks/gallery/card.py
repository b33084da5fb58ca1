"""What every entry of the gallery says about itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Card"]


@dataclass(frozen=True)
class Card:
    """One composition: what it is, why theta is at risk, and where it comes from.

    Attributes:
        title: its name.
        equation: LaTeX, without dollar signs; theta, phi, f_sci and f_nn as in the book's notation.
        wires: the diagram, as chains of blocks: "theta > physics > sum > y; x > network > sum". Blocks named
            theta, physics and network (or "network: encoder", "physics: circuit") are coloured by their role.
        theta: what the scientific parameters are.
        missing: what the scientific model lacks, which the network must learn.
        risk: why a good prediction says little about theta here.
        after: citation keys of the sources.
        simplified: what is simpler here than there.
        penalty: whether a penalty on the network's own output can be written.
    """

    title: str
    equation: str
    wires: str
    theta: str
    missing: str
    risk: str
    after: tuple[str, ...]
    simplified: str
    penalty: bool
