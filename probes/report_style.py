"""The style sheet of the report: light, quiet, legible on a phone and in print; no font or file from elsewhere."""

STYLE = """
:root { --ink: #1c2230; --soft: #5d6675; --line: #e2e5ea; --tint: #f5f7f9; --accent: #0b62a4; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 32px; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 10px; }
h2 { font-size: 23px; margin: 56px 0 8px; padding-top: 22px; border-top: 2px solid var(--ink); }
h3 { font-size: 17px; margin: 36px 0 10px; }
h4 { font-size: 15px; margin: 22px 0 6px; }
h4 small { font-weight: 400; color: var(--soft); margin-left: 6px; }
p { margin: 8px 0; max-width: 46em; }
.lead { font-size: 18px; color: var(--soft); }
.note { padding: 10px 14px; background: #fdf5e3; border-left: 4px solid #c99a2e; }
.caption, figcaption { font-size: 13.5px; line-height: 1.5; color: var(--soft); max-width: 62em; }
.caption em { font-style: normal; font-weight: 600; color: var(--ink); }
.facts { display: flex; flex-wrap: wrap; gap: 12px 44px; margin: 26px 0 10px; }
.facts div { display: flex; flex-direction: column; }
.facts dd { margin: 0; font-size: 27px; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.2; }
.facts dt { color: var(--soft); font-size: 13.5px; }
figure { margin: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 20px 36px; }
.chart { width: 100%; height: auto; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; font-size: 13.5px; max-width: none; margin: 0 0 8px; }
.legend span { display: inline-flex; align-items: center; gap: 7px; }
.swatch { flex: none; vertical-align: middle; }
.scroll { overflow-x: auto; margin: 0 -4px; padding: 0 4px; }
table { border-collapse: collapse; font-size: 14px; width: 100%; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); font-size: 12.5px; }
th, td { padding: 6px 10px; text-align: right; vertical-align: top; white-space: nowrap; }
thead tr:last-child th { border-bottom: 1px solid #b9c0ca; }
thead th { vertical-align: bottom; }
thead th[colspan] { text-align: center; }
tbody tr:not(.group) td { border-bottom: 1px solid var(--line); }
.name { text-align: left; white-space: normal; min-width: 11em; overflow-wrap: anywhere; }
td.name .swatch { margin-right: 8px; }
.group th { text-align: left; padding-top: 16px; color: var(--ink); font-size: 13.5px; background: #fff;
  border-bottom: 1px solid var(--line); }
td small { display: block; color: var(--soft); font-size: 11.5px; line-height: 1.25; font-weight: 400; }
td.best { font-weight: 700; background: var(--tint); }
.split { border-left: 1px solid #c9ced6; }
.none { color: #a4abb6; }
.verdict { text-align: left; font-size: 13px; color: var(--soft); }
.verdict.better { color: #1c6e38; font-weight: 600; }
.verdict.worse { color: #b23b12; font-weight: 600; }
.matches { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 16px 24px; }
.match { width: 100%; height: auto; display: block; background: #fff; }
figcaption { margin-top: 4px; }
figcaption b { color: var(--ink); font-weight: 600; }
.hidden { position: absolute; }
.wide img { max-width: 100%; min-width: min(100%, 620px); height: auto; display: block;
  image-rendering: auto; border: 1px solid var(--line); }
code, pre { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--tint); padding: 12px 14px; white-space: pre-wrap; overflow-wrap: anywhere; }
li { margin: 5px 0; max-width: 62em; }
@media (max-width: 640px) { main { padding: 22px 14px 60px; } h1 { font-size: 26px; } .facts { gap: 10px 28px; } }
@media print { main { max-width: none; padding: 0; } figure, tr { break-inside: avoid; } h2 { break-after: avoid; } }
"""
