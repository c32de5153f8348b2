"""What is shown is run: the README's lines, the chapter of the book, the notebook."""

import json
import re

import pytest

import gmflow
from conftest import ROOT


def blocks(path):
    """The Python blocks of a page, each with its line."""
    text = path.read_text()
    return [(text[: m.start()].count("\n") + 2, m[1]) for m in re.finditer(r"```python\n(.*?)```", text, re.S)]


@pytest.fixture
def beside_the_models(tmp_path, monkeypatch):
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(source, place, names):
    # The line numbers of the page, so that a failure names them.
    exec(compile("\n" * (place[1] - 1) + source, str(place[0]), "exec"), names)


def test_the_lines_of_the_readme(beside_the_models):
    pytest.importorskip("PIL")
    found = blocks(ROOT / "README.md")
    assert found
    for line, source in found:
        run(source, (ROOT / "README.md", line), {})
    assert list(beside_the_models.glob("*.png"))


def test_the_chapter_of_the_book(beside_the_models):
    pytest.importorskip("PIL")
    page = ROOT / "book" / "src" / "python.md"
    names, skipped = {}, []
    for line, source in blocks(page):
        try:
            run(source, (page, line), names)
        except ModuleNotFoundError as error:
            assert error.name in ("torch", "diffusers"), error
            skipped.append(error.name)
    if skipped:
        pytest.skip(f"blocks that need {', '.join(sorted(set(skipped)))}; the others were run")


def test_the_notebook(capsys):
    pytest.importorskip("torch")
    pytest.importorskip("PIL")
    notebook = json.loads((ROOT / "examples" / "gmflow.ipynb").read_text())
    names = {}
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {index}", "exec"), names)
    assert "frechet_distance" in capsys.readouterr().out


def test_the_notebook_shows_what_it_has_computed():
    path = ROOT / "examples" / "gmflow.ipynb"
    assert path.stat().st_size < 500_000
    code = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = [kind for cell in code for output in cell["outputs"] for kind in output.get("data", {})]
    assert "image/png" in kinds
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]


def test_the_chapter_names_every_exception():
    text = (ROOT / "book" / "src" / "python.md").read_text()
    for name in gmflow.__all__:
        assert f"`{name}`" in text or f"gmflow.{name}" in text or name in ("PipelineOutput", "set_num_threads", "solvers"), name


def test_everything_public_has_a_docstring():
    import inspect

    import gmflow.eval

    things = [getattr(gmflow, name) for name in gmflow.__all__] + [getattr(gmflow.eval, name) for name in gmflow.eval.__all__]
    for thing in things:
        assert inspect.getdoc(thing), thing
        if inspect.isclass(thing):
            for name, member in vars(thing).items():
                if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                    assert inspect.getdoc(member), (thing, name)
