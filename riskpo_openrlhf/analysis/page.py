"""The template of the report. Everything that comes from a run is escaped; only our own SVG is marked safe."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ name }} – RiskPO run</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --grey: #666; --line: #ddd; --card: #f6f7f8;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9;
  --warn: #a33c00; --warn-card: #fff3ea; --fine: #00674b; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181a; --ink: #e8e8e8; --grey: #a3a3a3; --line: #3a3d40;
  --card: #1f2225; --c0: #56b4e9; --c1: #ff8c42; --c2: #2bc59a; --c3: #e19cc3; --c4: #f0b83d; --c5: #9ad4f5;
  --warn: #ffab73; --warn-card: #33241a; --fine: #5fd3ae; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .3rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
p { margin: .4rem 0; max-width: 48rem; }
a { color: var(--c0); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .6rem 0; }
.quiet { color: var(--grey); }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem .6rem .2rem; background: var(--card); border-radius: .5rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.warning { background: var(--warn-card); border-left: .3rem solid var(--warn); padding: .5rem .8rem; margin: .6rem 0;
  break-inside: avoid; max-width: 52rem; }
.warning strong { color: var(--warn); }
.fine { color: var(--fine); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); padding: .6rem; border-radius: .4rem;
  margin: .3rem 0; max-height: 22rem; overflow-y: auto; font: .85rem/1.45 ui-monospace, Menlo, Consolas, monospace; }
code { font: .9em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
@media (max-width: 40rem) {
  table { font-size: .9rem; }
  .stacked td { display: block; border: 0; padding: 0; }
  .stacked td:first-child { font-weight: 600; padding-top: .6rem; }
  .stacked tr:has(th) { display: none; }
}
@media print {
  :root { --paper: #fff; --ink: #000; --grey: #555; --card: #fff; --line: #bbb; --warn-card: #fff; --warn: #8a3200;
    --fine: #00553e; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3, summary { break-after: avoid; }
  pre { max-height: none; border: 1px solid var(--line); }
  details::details-content { content-visibility: visible; }
  .panels { grid-template-columns: repeat(2, 1fr); }
  figure { border: 1px solid var(--line); }
}
</style>
</head>
<body>
{% set warnings = checks | selectattr("state", "equalto", "warning") | list %}
<header>
<p class="quiet">RiskPO run</p>
<h1>{{ name }}</h1>
<p>
{% if log.done %}Finished{% elif log.step %}Not finished when this was written{% else %}No train.log, so no word on \
whether it finished{% endif %}; {{ log.step or "step %d" | format(steps) }}.
{% if log.settings %}<br><span class="quiet">{{ log.settings }}</span>{% endif %}
</p>
<nav>
<a href="#warnings">Warnings ({{ warnings | length }})</a>
{% for section in sections %}<a href="#section-{{ loop.index }}">{{ section.title }}</a>
{% endfor %}
<a href="#answers">Answers</a>
<a href="#settings">Settings</a>
</nav>
</header>

{% if numbers %}
<div class="wide"><table>
<tr><th></th><th>at first</th><th>at last</th></tr>
{% for row in numbers %}
<tr><td>{{ row[0] }}</td><td class="number">{{ row[1] }}</td><td class="number">{{ row[2] }}</td></tr>
{% endfor %}
</table></div>
<p class="quiet">Training metrics: means of the first and the last {{ first }} steps. Pass@k: the first and the last \
evaluation.</p>
{% endif %}

<h2 id="warnings">Warnings</h2>
{% for check in warnings %}
<div class="warning">
<p><strong>⚠ {{ check.name }}.</strong> {{ check.found }}. <span class="quiet">Threshold: {{ check.limit }}.</span></p>
<p>{{ cure(check.cure) }} <span class="quiet">(docs/troubleshooting.md)</span></p>
</div>
{% else %}
<p class="fine">None of the checks below found anything.</p>
{% endfor %}
<details{% if not warnings %} open{% endif %}>
<summary>All {{ checks | length }} checks</summary>
<div class="wide"><table class="stacked">
<tr><th>check</th><th></th><th>found</th><th>threshold</th></tr>
{% for check in checks %}
<tr><td>{{ check.name }}</td>
<td class="number">{{ {"warning": "⚠ warning", "fine": "✓ fine", "unknown": "– not judged"}[check.state] }}</td>
<td>{{ check.found }}</td><td class="quiet">{{ check.limit }}</td></tr>
{% endfor %}
</table></div>
</details>

{% for section in sections %}
<h2 id="section-{{ loop.index }}">{{ section.title }}</h2>
<p class="quiet">{{ section.text }}</p>
<div class="panels">
{% for panel in section.panels if panel.series %}
<figure role="img" aria-label="{{ panel.title }}"><h3>{{ panel.title }}</h3>{{ draw(panel) | safe }}</figure>
{% endfor %}
</div>
{% set missing = section.panels | rejectattr("series") | map(attribute="title") | join(", ") %}
{% if missing %}<p class="quiet">Not logged by this run: {{ missing }}.</p>{% endif %}
{% endfor %}

{% for home, rows in evaluations.items() %}
{% if loop.first %}<h2 id="evaluations">Evaluations</h2>{% endif %}
<h3>{{ home }}</h3>
<div class="wide"><table>
<tr><th>data</th>{% for k in ks %}<th>Pass@{{ k }}</th>{% endfor %}<th>tokens</th><th>truncated</th></tr>
{% for row in rows %}
<tr>{% for cell in row %}<td class="number">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endfor %}

<h2 id="answers">Sample answers</h2>
{% for sample in samples %}
<details{% if loop.index <= 3 %} open{% endif %}>
<summary>{{ sample.origin }}: \
{{ "no verdict" if sample.reward is none else "reward %g" | format(sample.reward) }}</summary>
<pre>{{ sample.text[:shown] }}</pre>
{% if sample.text | length > shown %}
<p class="quiet">… and {{ sample.text | length - shown }} more characters</p>
{% endif %}
</details>
{% else %}
<p class="quiet">None found: neither in the TensorBoard files nor in an evaluation's samples.jsonl in this folder.</p>
{% endfor %}

<h2 id="settings">Settings</h2>
{% if command %}
<div class="wide"><table class="stacked">
{% for flag, value in command %}
<tr><td><code>{{ flag }}</code></td><td><code>{{ value }}</code></td></tr>
{% endfor %}
</table></div>
{% else %}
<p class="quiet">No command.sh in the folder; the recipes leave one.</p>
{% endif %}
{% if log.messages %}
<details><summary>What the job said beside its steps</summary><pre>{{ log.messages | join("\\n") }}</pre></details>
{% endif %}
{% if log.tail and not log.done %}
<details open><summary>The last lines of train.log</summary><pre>{{ log.tail | join("\\n") }}</pre></details>
{% endif %}
</body>
</html>
"""
