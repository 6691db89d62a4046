"""The pages' style sheet."""

CSS = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --line: #d9dee6; --paper: #ffffff; --wash: #f4f6f9;
  --good: #1a7f4b; --bad: #b3382c; --accent: #2c5fb3; --bar: #a9c1e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --line: #38414d; --paper: #14181e;
  --wash: #1d232b; --good: #55c58c; --bad: #ee8477; --accent: #8ab1f2; --bar: #35507c; } }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink);
  background: var(--paper); }
main { max-width: 1180px; margin: 0 auto; padding: 20px 20px 60px; }
h1 { font-size: 1.6rem; margin: 0 0 2px; line-height: 1.25; } h2 { font-size: 1.15rem; margin: 34px 0 10px; }
p.lead { color: var(--soft); margin: 0 0 18px; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 10px; }
.tile { background: var(--wash); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
h1, h4, summary, .tag { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } details.apart { margin-top: 28px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; } td.n, th.n { text-align: right; }
td.n { white-space: nowrap; }
td.bar { min-width: 120px; } .track { background: var(--wash); border-radius: 3px; height: 12px; }
.track i { display: block; height: 12px; border-radius: 3px; background: var(--bar); }
figure { margin: 0; } svg { max-width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 28px; }
.filters { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 8px; align-items: center;
  padding: 10px 0; background: var(--paper); border-bottom: 1px solid var(--line); }
.filters label { font-size: .85rem; color: var(--soft); }
select, input, button { font: inherit; color: inherit; background: var(--wash); border: 1px solid var(--line);
  border-radius: 6px; padding: 5px 8px; max-width: 100%; }
input[type=search] { min-width: 16em; }
button { cursor: pointer; } select:focus, input:focus, button:focus { outline: 2px solid var(--accent); }
article { border: 1px solid var(--line); border-radius: 8px; margin: 14px 0; padding: 12px 14px; }
article h3 { font-size: 1rem; margin: 0 0 6px; overflow-wrap: anywhere; }
.tags { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 8px; }
.tag { font-size: .78rem; background: var(--wash); border: 1px solid var(--line); border-radius: 20px; padding: 0 9px;
  max-width: 100%; }
.tag.bad { color: var(--bad); border-color: var(--bad); } .tag.good { color: var(--good); border-color: var(--good); }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 14px; }
.sides > div { min-width: 0; } .sides h4 { margin: 4px 0; font-size: .85rem; color: var(--soft); }
pre { background: var(--wash); border-radius: 6px; padding: 8px 10px; margin: 0 0 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, "Cascadia Code", Consolas, monospace; }
.result { overflow-x: auto; max-height: 300px; } .result table { font-size: .82rem; }
.result td, .result th { white-space: nowrap; } .null { color: var(--soft); font-style: italic; }
.error { color: var(--bad); overflow-wrap: anywhere; }
@media (max-width: 560px) { td.bar { min-width: 48px; } main { padding: 14px 12px 40px; } h1 { font-size: 1.3rem; }
  .tiles { grid-template-columns: 1fr 1fr; } .filters { position: static; } .filters label, .filters select,
  .filters input { width: 100%; } }
"""
