"""Changed images and annotations: mutate_data.py, by its own outcomes."""

from collections.abc import Iterator

import mutate_data

from campaign.cases import ANSWER, REFUSED, Budget, Case

BATCH = 60  # of images and of annotations at a time, until the time is used up


def cases(budget: Budget) -> Iterator[Case]:
    """Yield what came of changed annotations and images, by format."""
    done = 0
    for i in budget.numbers():
        size = min(BATCH, (budget.count - done) // 2)
        if size < 1:
            return
        for row in mutate_data.run(size, budget.seed * 1000 + i):
            told = f"{row['format']}, --seed {budget.seed * 1000 + i} --count {size}"
            for word in ("same", "told", "refused", "changed", "crash", "hang"):
                outcome = {"same": ANSWER, "told": ANSWER, "changed": ANSWER, "refused": REFUSED}
                for _ in range(row[word]):
                    yield Case(row["kind"], told, outcome.get(word, word), row["slowest_s"],
                               row["peak_mb"])  # fmt: skip
        done += 2 * size
