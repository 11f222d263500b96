"""The report's style sheet: one column, light, dark and print, from a phone's width up."""

COLOURS = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f5f6f8; --ink: #1b1f24; --muted: #5b6470; --line: #d9dde3;
  --accent: #0b62c4; --second: #b4540a; --good: #1a7f37; --bad: #c0271d; --heat: 11 98 196; --good-card: #e9f6ec;
  --bad-card: #fdeeec; --warn-card: #fff6dc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1e2329; --ink: #e7eaee; --muted: #9ba5b1; --line: #353c45;
    --accent: #6db3ff; --second: #f0a35c; --good: #5fd07f; --bad: #ff8177; --heat: 78 150 235; --good-card: #16291c;
    --bad-card: #351c1a; --warn-card: #332b14;
  }
}
"""
"""Of light and dark, as CSS variables."""

CSS = (
    COLOURS
    + """* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 68rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word;
}
header p { margin: 0; max-width: none; color: var(--muted); font-size: .9rem; overflow-wrap: anywhere; }
h1 { margin: 0 0 .25rem; font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); font-size: 1.25rem; }
h3 { margin: 1.75rem 0 .25rem; font-size: 1rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .15rem 1rem; margin: 1rem 0 0; font-size: .9rem; }
bdi { overflow-wrap: anywhere; }
code, pre { font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { margin: .25rem 0 .75rem; padding: .6rem .75rem; background: var(--card); border-radius: .4rem;
  white-space: pre-wrap; }
.verdict {
  margin: 1.25rem 0; padding: 1rem 1.25rem; border-left: .3rem solid var(--muted); border-radius: .4rem;
  background: var(--card); font-size: 1.15rem;
}
.verdict p { margin: 0; max-width: none; }
.verdict p + p { margin-top: .5rem; }
.verdict.good { border-color: var(--good); background: var(--good-card); }
.verdict.bad { border-color: var(--bad); background: var(--bad-card); }
.notice { padding: .6rem .9rem; border-radius: .4rem; background: var(--warn-card); max-width: none; }
.notice.bad { background: var(--bad-card); }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); gap: .75rem; margin: 1.25rem 0; }
.tile { padding: .75rem 1rem; background: var(--card); border-radius: .4rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { display: block; color: var(--muted); font-size: .85rem; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
table.race { font-size: .85rem; }
th { color: var(--muted); font-weight: 500; vertical-align: bottom; }
th:last-child, td:last-child { padding-right: 0; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.tight { white-space: nowrap; }
td { max-width: 24rem; }
td bdi { display: inline-block; min-width: calc(var(--letters) * .6em); }
.yes { color: var(--good); font-weight: 600; }
.no { color: var(--bad); font-weight: 600; }
.muted, figcaption { color: var(--muted); font-size: .9rem; }
.span { position: relative; display: inline-block; width: 9rem; height: .7rem; border-radius: .2rem;
  background: var(--card); }
.span i { position: absolute; top: 0; bottom: 0; border-radius: .2rem; background: var(--accent); opacity: .35; }
.span b { position: absolute; top: -.1rem; bottom: -.1rem; width: 2px; margin-left: -1px; background: var(--accent); }
table.matrix td, table.matrix th { padding: .3rem .45rem; border: 0; text-align: center; min-width: 2.1rem; }
table.matrix th[scope=row] { text-align: left; white-space: nowrap; color: var(--ink); font-weight: 400; }
table.matrix th[scope=row] bdi { display: inline-block; max-width: 11rem; overflow: hidden; text-overflow: ellipsis;
  vertical-align: bottom; }
table.matrix td { background: rgb(var(--heat) / calc(var(--share) * .75)); border-radius: .15rem; }
table.matrix td.right { outline: 1px solid var(--line); outline-offset: -1px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: .75rem 0; }
figure.wide { max-width: 36rem; }
svg.chart { display: block; width: 100%; height: auto; font-family: inherit; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.25rem; color: var(--muted); font-size: .9rem; }
.mark { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; border-radius: 50%;
  border: 1.5px solid; }
.mark.chosen { color: var(--accent); background: currentColor; }
.mark.kept { color: var(--ink); background: currentColor; }
.mark.out { color: var(--muted); }
.mark.limit { color: var(--bad); height: 0; border-radius: 0; border-width: 0 0 2px; border-style: dashed;
  vertical-align: middle; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: .5rem 0 1rem;
  font-size: .92rem; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--accent); }
ul { margin: .5rem 0; padding-left: 1.25rem; }
footer { margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--line); color: var(--muted);
  font-size: .85rem; }
@media (max-width: 34rem) {
  body { padding: 1rem .9rem 3rem; }
  h1 { font-size: 1.25rem; }
  h2 { margin-top: 2.25rem; }
  .verdict { padding: .8rem .9rem; font-size: 1.05rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  .span { width: 5.5rem; }
  .tiles { grid-template-columns: repeat(2, 1fr); gap: .5rem; }
  .tile { padding: .6rem .7rem; }
  .tile b { font-size: 1.15rem; }
}
@media print {
  :root {
    --page: #ffffff; --card: #f2f3f5; --ink: #000000; --muted: #444444; --line: #cccccc; --accent: #0b4f9e;
    --second: #9a4708; --good: #14652b; --bad: #a01f16; --heat: 11 98 196; --good-card: #f2f3f5; --bad-card: #f2f3f5;
    --warn-card: #f2f3f5;
  }
  body { max-width: none; padding: 0; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  nav { display: none; }
  h2, h3 { break-after: avoid; }
  tr, figure, .tile, .verdict { break-inside: avoid; }
  .scroll { overflow: visible; }
}
""".strip()
)
