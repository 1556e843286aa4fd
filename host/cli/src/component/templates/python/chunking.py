from weir_sdk import Range
from weir_sdk.chunking import PassageSource
====
        # Maximum length of a passage in bytes.
        self.passage_bytes = settings.within("passage-bytes", 900, 50, 100_000)
====
    def passages(self, source: PassageSource) -> list[Range]:
        """Fills each passage with as many lines as fit."""
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
