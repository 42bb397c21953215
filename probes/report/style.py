"""The style sheet of every page: quiet, light or dark as the reader's system is, legible on a phone and in print."""

from probes.charts import COLOURS

# The charts' colours are chosen for white paper; on a dark ground each has a lighter twin.
_ON_DARK = ("#6bb3ee", "#f0966b", "#67c58d", "#c99ae0", "#dcb84a", "#70c7cf", "#ee86ad", "#b9bec7")
_DARK = """
  color-scheme: dark;
  --ink: #e8ebf0; --soft: #a3acb9; --line: #2c333e; --tint: #1b212a; --paper: #12161c; --rule: #596273;
  --warn: #2d2612; --warn-edge: #c99a2e; --good: #74d19a; --bad: #f2946f;
"""


def _twins(scope: str) -> str:
    pairs = zip(COLOURS, _ON_DARK, strict=True)
    return "\n".join(
        f'{scope} [stroke="{one}"] {{ stroke: {twin}; }} {scope} [fill="{one}"] {{ fill: {twin}; }}'
        for one, twin in pairs
    )


STYLE = f"""
:root {{
  --ink: #1c2230; --soft: #5d6675; --line: #e2e5ea; --tint: #f4f6f8; --paper: #fff; --rule: #b9c0ca;
  --warn: #fdf5e3; --warn-edge: #c99a2e; --good: #1c6e38; --bad: #b23b12;
}}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} }}
{_twins(".chart")}
{_twins(".swatch")}
{_twins(".spark")}
}}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 1140px; margin: 0 auto; padding: 40px 24px 80px; }}
h1 {{ font-size: 32px; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 10px; }}
h2 {{ font-size: 24px; margin: 60px 0 6px; padding-top: 22px; border-top: 2px solid var(--ink); }}
h3 {{ font-size: 19px; margin: 40px 0 8px; }}
h4 {{ font-size: 16px; margin: 30px 0 8px; }}
h5 {{ font-size: 14.5px; margin: 20px 0 6px; }}
h5 small {{ font-weight: 400; color: var(--soft); margin-left: 6px; }}
p {{ margin: 8px 0; max-width: 46em; }}
a {{ color: inherit; text-underline-offset: 3px; text-decoration-color: var(--rule); }}
.lead {{ font-size: 18px; color: var(--soft); }}
.question {{ font-size: 17px; color: var(--soft); }}
.note {{ padding: 10px 14px; background: var(--warn); border-left: 4px solid var(--warn-edge); max-width: 62em;
  overflow-wrap: anywhere; }}
ul.note {{ padding-left: 32px; font-size: 14.5px; }}
.caption, figcaption {{ font-size: 13.5px; line-height: 1.5; color: var(--soft); max-width: 62em; }}
.caption em {{ font-style: normal; font-weight: 600; color: var(--ink); }}
.facts {{ display: flex; flex-wrap: wrap; gap: 12px 44px; margin: 26px 0 10px; }}
.facts div {{ display: flex; flex-direction: column; }}
.facts dd {{ margin: 0; font-size: 27px; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.2; }}
.facts dt {{ color: var(--soft); font-size: 13.5px; }}
nav {{ display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 14.5px; margin: 14px 0; }}
figure {{ margin: 0; min-width: 0; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 20px 36px; }}
.charts figure {{ max-width: 560px; }}
.chart {{ width: 100%; height: auto; display: block; }}
.legend {{ display: flex; flex-wrap: wrap; gap: 4px 22px; font-size: 13.5px; max-width: none; margin: 0 0 8px; }}
.legend span {{ display: inline-flex; align-items: center; gap: 7px; }}
.swatch {{ flex: none; vertical-align: middle; }}
.scroll {{ overflow-x: auto; margin: 0 -4px; padding: 0 4px; background:
  linear-gradient(var(--paper), var(--paper)) left / 24px 100% no-repeat local,
  linear-gradient(var(--paper), var(--paper)) right / 24px 100% no-repeat local,
  linear-gradient(to right, var(--rule), transparent) left / 9px 100% no-repeat scroll,
  linear-gradient(to left, var(--rule), transparent) right / 9px 100% no-repeat scroll; }}
table {{ border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }}
th {{ font-weight: 600; color: var(--soft); font-size: 12.5px; }}
th, td {{ padding: 6px 12px; text-align: right; vertical-align: top; white-space: nowrap; }}
thead th {{ vertical-align: bottom; border-bottom: 1px solid var(--rule); white-space: normal; min-width: 5.5em; }}
thead th.long {{ min-width: 9.5em; }}
tbody td, tbody th {{ border-bottom: 1px solid var(--line); }}
.name {{ text-align: left; white-space: normal; min-width: 9em; max-width: 24em; overflow-wrap: break-word; }}
td.name code {{ overflow-wrap: anywhere; }}
td.name .swatch {{ margin-right: 8px; }}
.stick {{ position: sticky; left: 0; background: var(--paper); z-index: 1; }}
.group th {{ text-align: left; padding-top: 18px; color: var(--ink); font-size: 13.5px; }}
.group th span {{ position: sticky; left: 12px; }}
small {{ font-size: 11.5px; line-height: 1.3; font-weight: 400; color: var(--soft); }}
td small, th small {{ display: block; }}
.best {{ font-weight: 700; background: var(--tint); }}
.split {{ border-left: 1px solid var(--rule); }}
.none {{ color: var(--soft); }}
.rank {{ display: inline-block; min-width: 1.9em; padding: 0 4px; margin-left: 7px; border-radius: 3px;
  text-align: center; font-size: 11.5px; line-height: 1.55; font-weight: 600; border: 1px solid var(--rule);
  color: var(--soft); }}
.rank.first {{ background: var(--ink); color: var(--paper); border-color: var(--ink); }}
.rank.tied {{ border-color: var(--ink); color: var(--ink); }}
.summary td {{ min-width: 8.4em; }}
.summary tbody th {{ text-align: left; white-space: normal; min-width: 10.5em; max-width: 16em; font-size: 14px;
  color: var(--ink); overflow-wrap: break-word; }}
.spark {{ display: block; width: 104px; height: 12px; margin: 3px 0 0 auto; }}
.verdict {{ text-align: left; font-size: 13px; color: var(--soft); }}
.verdict.better {{ color: var(--good); font-weight: 600; }}
.verdict.worse {{ color: var(--bad); font-weight: 600; }}
.panels {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 16px 22px; }}
.panels.images {{ grid-template-columns: repeat(auto-fill, minmax(min(45%, 190px), 1fr)); }}
.panels.many {{ grid-template-columns: repeat(auto-fill, minmax(min(45%, 150px), 1fr)); }}
.panels img, .panels svg {{ width: 100%; height: auto; display: block; background: #fff; color: #1c2230; }}
figcaption {{ margin-top: 4px; overflow-wrap: anywhere; }}
figcaption b {{ color: var(--ink); font-weight: 600; }}
.hidden {{ position: absolute; }}
.pixels figure + figure img {{ image-rendering: pixelated; }}
.wide img {{ max-width: 100%; min-width: min(100%, 620px); height: auto; display: block;
  border: 1px solid var(--line); }}
code, pre {{ font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }}
pre {{ background: var(--tint); padding: 12px 14px; white-space: pre-wrap; }}
summary {{ cursor: pointer; color: var(--soft); font-size: 14px; margin: 10px 0; }}
li {{ margin: 5px 0; max-width: 62em; overflow-wrap: anywhere; }}
@media (max-width: 640px) {{
  main {{ padding: 22px 14px 60px; }} h1 {{ font-size: 26px; }} .facts {{ gap: 10px 28px; }}
  .facts dd {{ font-size: 22px; }} th, td {{ padding: 6px 8px; }} .name {{ min-width: 7em; max-width: 11em; }}
  .chart text {{ font-size: 14px; }}
  .summary tbody th {{ min-width: 8.6em; max-width: 9.5em; font-size: 13px; }}
}}
@media print {{
  main {{ max-width: none; padding: 0; }} figure, tr {{ break-inside: avoid; }} h2, h3, h4, h5 {{ break-after: avoid; }}
  nav {{ display: none; }} .scroll {{ overflow: visible; }} .stick {{ position: static; }}
  .rank.first {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
}}
"""
