"""The report as one page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from .facts import LayerFacts, SelectionFacts

MIB = 2**20
STYLE = (
    'body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1180px;padding:0 1em;color:#1c1c1c}'
    'img{width:100%;height:auto}table{border-collapse:collapse;font-size:13px;width:100%}'
    'th,td{padding:.25em .6em;text-align:right;border-bottom:1px solid #e4e4e4}'
    'th:first-child,td:first-child{text-align:left;font-family:monospace}'
)
COLUMNS = {
    'layer': lambda x: x.name,
    'neurons': lambda x: f'{x.neurons:,}',
    'inputs': lambda x: f'{x.fan_in:,}',
    'trained': lambda x: f'{x.chosen:,}',
    'share': lambda x: f'{x.share:.3%}',
    'inputs chosen': lambda x: f'{x.columns:,} ({x.column_share:.0%})',
    'from the busiest five': lambda x: f'{x.busiest:.0%}',
    'median gradient, chosen / all': lambda x: _medians(x),
    'route': lambda x: x.route,
    'input kept': lambda x: f'{x.kept_inputs:.0%}',
    'saved, MiB': lambda x: f'{x.bytes_saved / MIB:.2f}',
}


def html_page(facts: SelectionFacts, pictures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        facts: Of the selection.
        pictures: PNG files, by a heading for each.
    """
    roles = ', '.join(f'{escape(role.replace("_", " "))} {count:,}' for role, count in facts.roles.items())
    saved = sum(layer.bytes_saved for layer in facts.layers) / MIB
    parts = [
        f'<!doctype html><meta charset="utf-8"><title>{escape(facts.title)}</title><style>{STYLE}</style>',
        f'<h1>What was chosen</h1><p>{escape(facts.title)}. Trained: {roles or "nothing"}. Gradients and moments of '
        f'Adam that training all of these weights would hold besides: {saved:,.1f} MiB.</p>',
    ]
    for heading, content in pictures.items():
        source = base64.b64encode(content).decode()
        parts.append(f'<h2>{escape(heading)}</h2><img alt="{escape(heading)}" src="data:image/png;base64,{source}">')
    parts.append(f'<h2>Layer by layer</h2>{_table(facts)}')
    return '\n'.join(parts) + '\n'


def _table(facts: SelectionFacts) -> str:
    head = ''.join(f'<th>{escape(name)}</th>' for name in COLUMNS)
    rows = [''.join(f'<td>{escape(cell(layer))}</td>' for cell in COLUMNS.values()) for layer in facts.layers]
    return f'<table><tr>{head}</tr>' + ''.join(f'<tr>{row}</tr>' for row in rows) + '</table>'


def _medians(layer: LayerFacts) -> str:
    if layer.gradients is None:
        return 'not known'
    return f'{layer.gradients.of_chosen[2]:.2g} / {layer.gradients.of_all[2]:.2g}'
