"""The report of an experiment as one document: who is compared, the facts, the words, the pictures and the page.

`lineup` says who takes part, `content` what is true of them, `summary` which sentences follow; `layout` orders tables
and pictures, and `page` writes them as Markdown or as one HTML file. All from the registry, none from a work folder.
"""

from leverplus_core.report.document.content import Content, report_content
from leverplus_core.report.document.language import LANGUAGES, Words
from leverplus_core.report.document.page import check_output, markdown_text, write_report
from leverplus_core.report.document.summary import summary

__all__ = [
    "LANGUAGES",
    "Content",
    "Words",
    "check_output",
    "markdown_text",
    "report_content",
    "summary",
    "write_report",
]
