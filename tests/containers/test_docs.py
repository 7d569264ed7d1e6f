from pathlib import Path

from sfpsim.testing.contract import check_container
from sfpsim.testing.strategies import edge_cases

PAGE = Path(__file__).parents[2] / "docs" / "containers.md"


def test_the_container_of_the_docs_keeps_the_contract():
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) < 60
    body = code[code.index("@dataclass") : code.index("def make")].strip()
    assert len(body.splitlines()) < 50
    namespace = {"__name__": "docs_example"}
    exec(compile(code, str(PAGE), "exec"), namespace)
    container = namespace["make"]({})
    for x in edge_cases().values():
        check_container(container, x)


def test_the_table_of_all_containers_is_up_to_date():
    from sfpsim.containers.table import page

    assert (PAGE.parent / "zoo.md").read_text() == page()
