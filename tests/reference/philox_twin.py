"""Which bits does Philox4x32-10 give (Salmon et al. 2011), and where do the kernels use them? Python integers only."""

WORD = 0xFFFFFFFF
LOW = (1 << 29) - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the four words of a counter and a key."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(right >> 32) ^ c[1] ^ k[0], right & WORD, (left >> 32) ^ c[3] ^ k[1], left & WORD]
        k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
    return c[0], c[1], c[2], c[3]


class Draws:
    """The words of one elementary operation, by (place, part, lane); each is computed once."""

    def __init__(self, key: tuple[int, int], site: int) -> None:
        self.key, self.site, self.known = key, site, {}

    def words(self, place: int, part: int, lane: int) -> tuple[int, int, int, int]:
        """Return four words."""
        at = place, part, lane
        if at not in self.known:
            counter = part, place & WORD, lane, self.site ^ (place >> 32) << 16
            self.known[at] = philox(counter, self.key)
        return self.known[at]

    def sign(self, place: int, number: int, lane: int) -> int:
        """Return the sign bit that the `number`-th random rounding of a place and lane takes: 1 is minus."""
        return self.words(place, number // 128, lane)[number % 128 // 32] >> (31 - number % 32) & 1

    def low(self, place: int, number: int, lane: int) -> int:
        """Return the 29 bits that the `number`-th stochastic rounding of a place and lane adds."""
        return self.words(place, number // 4, lane)[number % 4] & LOW

    def element_sign(self, element: int) -> int:
        """Return the sign bit of an element of a sweep: 2048 elements are a place, sixteen a vector."""
        return self.sign(element // 2048, element % 2048 // 16, element % 16)

    def element_low(self, element: int) -> int:
        """Return the 29 bits of an element of a sweep."""
        return self.low(element // 2048, element % 2048 // 16, element % 16)

    def product_sign(self, panel: int, row: int, column: int, step: int, segment: int) -> int:
        """Return the sign bit of a multiply-add: that of the row times that of the column, each a product of changes.

        Args:
            panel: Number of the panel of 64 columns.
            column: Within the panel.
            segment: Number of products after which the signs start anew.
        """
        row_bit = column_bit = 0
        for k in range(step // segment * segment, step + 1):
            row_bit ^= self.sign(panel, k, 16 * (row // 16 + 1) + row % 16)
            word = self.words(panel, k // 32, column % 16)[k // 8 % 4]
            column_bit ^= word >> (31 - 4 * (k % 8) - column // 16) & 1
        return row_bit ^ column_bit

    def product_low(self, panel: int, row: int, column: int, step: int) -> int:
        """Return the 29 bits of a multiply-add: exclusive or of those of the row and of the column."""
        row_bits = self.low(panel, step, 16 * (row // 16 + 1) + row % 16)
        return row_bits ^ (self.words(panel, step, column % 16)[column // 16] & LOW)
