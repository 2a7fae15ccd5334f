"""Pages: templates with one common look, complete in themselves, readable anywhere.

A page asks nothing of the network, obeys light and dark, and treats every name in it as text: a class is named by
whoever named a folder.
"""

from __future__ import annotations

import base64
import hashlib
import io

from calotype.data.decode import decode

SMALL = 64
"""Up to so many pixels of its longer side a picture keeps its own pixels, which a page enlarges."""

LONGEST_NAME = 120

SORT_SCRIPT = """
for (const header of document.querySelectorAll('table.sortable th')) {
  const button = document.createElement('button');
  button.append(...header.childNodes);
  header.append(button);
  button.addEventListener('click', () => {
    const rising = header.getAttribute('aria-sort') === 'descending';
    for (const other of header.parentNode.children) other.removeAttribute('aria-sort');
    header.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
    const column = header.cellIndex, body = header.closest('table').tBodies[0];
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = (a, b) => key(a).localeCompare(key(b), undefined, {numeric: true});
    const numbers = (a, b) => key(a) - key(b);
    const order = 'value' in (body.rows[0]?.cells[column].dataset ?? {}) ? numbers : compare;
    body.append(...[...body.rows].sort((a, b) => (rising ? 1 : -1) * order(a, b)));
  });
}
"""


def render(template: str, /, **values: object) -> str:
    """A page as HTML text.

    Every value is escaped, but for ``markupsafe.Markup``. A name that the template uses and ``values`` lacks is an
    error. Filters: ``number`` (``1,797``), ``percent`` (a share, ``98.3 %``), ``short`` (a name, shortened), ``path``
    (the same, and a line may end after each slash).

    Parameters
    ----------
    template
        File name of a template in this folder; it extends ``page.html.j2``.
    values
        What the template shows.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("calotype.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["short"] = shorten
    environment.filters["path"] = lambda path: Markup("/<wbr>").join(shorten(path).split("/"))
    environment.filters["percent"] = lambda share: f"{share * 100:.1f}\u00a0%"
    digest = base64.b64encode(hashlib.sha256(SORT_SCRIPT.encode()).digest()).decode()
    return environment.get_template(template).render(script=Markup(SORT_SCRIPT), script_digest=digest, **values)


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """A name for a page: the middle of a long one is left out."""
    return name if len(name) <= longest else f"{name[: longest // 2]}…{name[-longest // 2 :]}"


def picture(data: bytes, *, max_megapixels: float, side: int = 192) -> tuple[str, bool]:
    """A stored image as a data URI for a page, and whether it is so small that a page should enlarge its pixels.

    Small images stay as they are (PNG); larger ones shrink to ``side`` pixels (JPEG), which keeps a page of them light.
    """
    image = decode(data, max_megapixels=max_megapixels)
    is_small = max(image.size) <= SMALL
    buffer = io.BytesIO()
    if is_small:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.thumbnail((side, side))
        image.save(buffer, format="JPEG", quality=82)
    kind = "png" if is_small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", is_small
