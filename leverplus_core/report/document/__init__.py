"""The report of an experiment as one document: what is compared, its data, sentences, plots, layout and drawing.

`spec` says what is compared, `content` holds the data, `summary` the sentences that follow from it; `layout` orders
tables and `plots`, and `render` writes them as Markdown or as one HTML file. All from the registry alone.
"""
