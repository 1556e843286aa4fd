from weir_sdk import Range
from weir_sdk.chunking import PassageSource
====
        # Longest passage.
        self.passage_bytes = settings.within("passage-bytes", 900, 50, 100_000)
====
    def passages(self, source: PassageSource) -> list[Range]:
        """As many lines as fit a passage."""
        at = offsets(source.text)
        passages: list[Range] = []
        start = 0
        for line in source.text.split("\n"):
            begin, end = at[start], at[start + len(line)]
            if passages and end - passages[-1].start <= self.passage_bytes:
                passages[-1].end = end
            elif line.strip():
                passages.append(Range(begin, end))
            start += len(line) + 1
        return passages
