"""A hook of MkDocs: the files at the top of the repository are pages of the site, too, with their links made right."""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

#: file at the top -> page
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
}


def on_files(files: Files, config) -> Files:
    """Add them. ``](docs/x.md)`` becomes ``](x.md)``, and a link to one of them leads to its page."""
    top = Path(config.config_file_path).parent
    for name, page in PAGES.items():
        text = re.sub(r"(\]\(|src=\")docs/", r"\1", (top / name).read_text(encoding="utf-8"))
        for other, its_page in PAGES.items():
            text = text.replace(f"]({other}", f"]({its_page}")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Links from a page of ``docs/`` up to one of them."""
    for name, its_page in PAGES.items():
        if not page.file.generated_by:
            markdown = markdown.replace(f"](../{name}", f"]({its_page}")
    return markdown
