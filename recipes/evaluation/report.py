"""The report page of a run, report.html, with the sections of its task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kzoo.recipes.evaluation.evaluate import SPLIT_NAMES, Evaluation
from kzoo.recipes.evaluation.page import (
    facts,
    listed,
    paragraph,
    plot,
    preformatted,
    settings,
    table,
    write_page,
)
from kzoo.recipes.evaluation.plots import draw_curves, known_curves
from kzoo.recipes.evaluation.provenance import provenance
from kzoo.recipes.evaluation.results import RunResults, write_results
from kzoo.recipes.inputs import read_config
from kzoo.recipes.task import FLOAT, INT8, Run
from kzoo.recipes.training.checkpoints import Row
from kzoo.tflite.xnnpack import divergence_of

KINDS = {FLOAT: "float32, Keras", INT8: "int8, TFLite"}
MEASURED = (
    "The int8 file was run by the TFLite interpreter. The best epoch was chosen on the validation "
    "images"
)
UNSEEN = "; the test images were used for no choice, so expect their figures on new images"


def write_report(run: Run, evaluation: Evaluation, history: Sequence[Row]) -> RunResults:
    """Write report.html, results.json and the task's own files; return the results."""
    report, config = run.task.report, read_config(run.folder)
    made = provenance(run, config, history)
    results = write_results(run, evaluation, history, made)
    report.files(run, evaluation)
    keys = known_curves(history, report.curves)
    curves = plot(draw_curves(list(history), keys), "figures by epoch") if history else ""
    sections = {
        "Result": results_section(run, evaluation, results),
        "Training": curves,
        **report.sections(run, evaluation),
        "Issues with the data": listed(run.dataset.issues, "None: every file was used unchanged."),
        "How it was made": facts(made.rows()),
        "Settings": settings(config),
    }
    write_page(run.folder / "report.html", title(report.net, config), str(run.dataset), sections)
    return results


def title(net: str, settings: Mapping[str, Any]) -> str:
    """Return the heading of a run's page; `net` is `Report.net`."""
    named = net.format_map(settings)
    return f"{named} (alpha {settings['alpha']:g}) on {Path(settings['data']).name}"


def results_section(run: Run, evaluation: Evaluation, results: RunResults) -> str:
    """Return HTML: the results of float and int8, and their comparison."""
    words = MEASURED + (UNSEEN if evaluation.test else "") + "."
    return "".join([
        results_table(run, evaluation),
        paragraph(results.summary()),
        paragraph(results.choice()) if results.chosen else "",
        paragraph(" ".join(filter(None, [words, run.task.report.note]))),
        doubt(run.int8),
        details(evaluation),
    ])  # fmt: skip


def doubt(file: Path) -> str:
    """Return HTML: that training diverged, where the activations of a run's int8 file say so."""
    found = divergence_of(file)
    return paragraph(found) if found else ""


def details(evaluation: Evaluation) -> str:
    """Return HTML: the agreement of file and model, in detections or in outputs."""
    if evaluation.agreement:
        return paragraph(evaluation.agreement)
    found = evaluation.comparison
    return paragraph(found.verdict) + preformatted(found.table) if found else ""


def results_table(run: Run, evaluation: Evaluation) -> str:
    """Return a table with a row for each model and split."""
    rows: list[tuple[str, ...]] = []
    columns: list[str] = []
    for split in evaluation.splits:
        for kind, score in split.scores.items():
            cells, file = run.task.report.cells(score), run.files[kind]
            columns = list(cells)
            images = f"{SPLIT_NAMES[split.name]}, {len(split.examples)} images"
            size = f"{file.stat().st_size / 1e6:.2f}\N{NO-BREAK SPACE}MB"
            rows.append((KINDS[kind], images, *cells.values(), size, file.name))
    return table(("", "measured on", *columns, "size", "file"), rows)
