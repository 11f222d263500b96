"""What the paper's records of most blocks share."""

from typing import ClassVar

from netsmith.arch.widths import Width, paper_width


class Single:
    """A block of one layer in names that count, with a width of its own, which depth may repeat."""

    out: Width
    reduction: ClassVar[bool] = False
    layers: ClassVar[int] = 1

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return paper_width(self.out)
