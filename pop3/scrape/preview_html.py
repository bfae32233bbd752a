"""A look at a site as a web page of a few files, for `pop3-try scrape --serve`."""

import re
from typing import Any

import jinja2
import nh3

from pop3.scrape import preview_marked
from pop3.scrape.preview import ItemSeen, Look, parts_of
from pop3.scrape.preview_hints import without_secret_values, without_secrets
from pop3.scrape.preview_server import PAGE_POLICY, Answer

_ABOUT = 3  # lines of the spec before and after the one with a mistake

_TEMPLATE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<link rel="stylesheet" href="/preview.css"><script src="/preview.js" defer></script></head>
<body data-version="{{ version }}">
<header class="{{ 'good' if look.good else 'bad' }}">
<h1>{{ look.spec.name if look.spec else look.file }}</h1>
<p><code>{{ look.file }}</code>, user <code>{{ look.name }}</code>
{%- for key, value in look.user.items() %} · {{ key }} <b>{{ value }}</b>{% endfor %}</p>
<p id="state">{% if look.good %}✓ {{ look.items | length }} of {{ look.listed }} items looked at, \
all that is required is there{% elif look.problems %}✗ {{ look.problems | length }} to mend\
{% elif version == 0 %}looking …{% else %}nothing was listed{% endif %}
<span id="live">watching the file: save it and this page follows</span></p>
</header>
{% if look.problems or look.advice %}<section><h2>What to do next</h2><ul id="problems">
{% for one in look.problems %}<li class="missing">{{ one }}</li>{% endfor %}
{% for one in look.advice %}<li class="advice">{{ one }}</li>{% endfor %}</ul>
{% if excerpt %}<pre id="excerpt">{% for number, line, here in excerpt %}\
<span class="{{ 'here' if here else '' }}">{{ '%4d' % number }}  {{ line }}</span>
{% endfor %}</pre>{% endif %}</section>{% endif %}

{% if look.steps %}<section><h2>Requests</h2><table id="requests">
<tr><th>#<th>request<th>status<th class="number">time<th class="number">octets<th></tr>
{% for step in look.steps %}<tr class="{{ 'missing' if not 200 <= step.status < 400 else '' }}">
<td>{{ loop.index }}<td class="url">{{ step.request.method }} {{ step.request.url | masked }}
{% if step.request.data %}<div class="dim">\
{{ step.request.data.decode('utf-8', 'replace') | masked | veiled }}</div>{% endif %}\
<td>{{ step.status or '-' }}<td class="number">{{ '%.2f' % step.seconds }} s\
<td class="number">{{ '{:,}'.format(step.octets) }}<td>{{ step | says | masked }}</tr>
{% endfor %}</table></section>{% endif %}

{% for page in look.pages %}<section><details {{ 'open' if loop.first }}>\
<summary><h2>List page {{ loop.index }}: {{ page.matches }} matches, \
{{ page.entries | length }} items</h2></summary>
<p class="dim">{{ page.page.url | masked }}</p>
<iframe sandbox="" title="list page {{ loop.index }}" \
src="/list/{{ loop.index }}/{{ version }}"></iframe>
</details></section>{% endfor %}

{% for item in look.items %}<section class="item"><h2>Item {{ loop.index }} \
<code>{{ item.entry.uid }}</code></h2><p class="dim">{{ item.entry.url | masked }}</p>
{% if item.problem %}<p class="missing">{{ item.problem }}</p>{% endif %}
<table class="fields"><tr><th>field<th>value<th>given by<th class="number">line</tr>
{% for field in item.fields %}<tr class="{{ field.state }}"><td>{{ field.reading.field.name }}
<td>{% if field.state == 'ok' %}{{ field.text | truncate(300) }}{% elif field.state == 'default' %}\
{{ field.text }} <span class="dim">the default</span>{% else %}\
<b>{{ 'missing' if field.state == 'missing' else 'empty' }}</b> {{ field.hint }}{% endif %}
<td><code>{{ field.selector }}</code>{% if field.reading.field.source != 'page' %} \
<span class="dim">of {{ field.reading.field.source }}</span>{% endif %}
{%- if field.reading.matches > 1 %} <span class="dim">{{ field.reading.matches }} matches</span>\
{% endif %}
<td class="number">{{ field.place | line }}</tr>
{% endfor %}</table>
{% if item.page %}<details><summary>its page, with the fields marked</summary>
<iframe sandbox="" loading="lazy" title="page of item {{ loop.index }}" \
src="/item/{{ loop.index }}/{{ version }}"></iframe></details>{% endif %}
{% if item.message %}{% set text, html, files = item.message | parts %}
<div class="mail"><table class="head">
{% for name, value in item.message.items() %}<tr><th>{{ name }}<td>{{ value }}</tr>{% endfor %}
</table>
{% if html %}<iframe sandbox="" class="html" title="mail {{ loop.index }}" \
src="/mail/{{ loop.index }}/{{ version }}"></iframe>{% endif %}
{% if html %}<details><summary>the text part</summary><pre>{{ text }}</pre></details>
{% else %}<pre class="text">{{ text }}</pre>{% endif %}
{% for name, kind, octets in files %}<p class="dim">attached: {{ name }} ({{ kind }}, \
{{ '{:,}'.format(octets) }} octets)</p>{% endfor %}
<details><summary>as it is sent: {{ '{:,}'.format(item.octets | length) }} octets</summary>
<pre>{{ item.octets.decode('utf-8', 'replace') }}</pre></details></div>{% endif %}
</section>{% endfor %}
</body></html>
"""

_STYLE = """
:root { --good: #1a7f37; --bad: #cf222e; --dim: #656d76; --line: #d0d7de; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1f2328; margin: 0 auto;
  max-width: 1100px; padding: 0 16px 60px; background: #f6f8fa; }
header { padding: 14px 18px; margin: 16px 0; border-radius: 8px; background: #fff;
  border: 1px solid var(--line); border-left: 8px solid var(--bad); }
header.good { border-left-color: var(--good); }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 17px; margin: 0 0 8px; }
header p { margin: 4px 0 0; }
#state { font-weight: 600; color: var(--bad); } .good #state { color: var(--good); }
#live { float: right; font-weight: 400; font-size: 13px; color: var(--dim); }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px;
  padding: 14px 18px; margin: 16px 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 4px 8px; border-top: 1px solid #eaeef2;
  overflow-wrap: anywhere; }
tr:first-child > * { border-top: 0; }
th { color: var(--dim); font-weight: 600; white-space: nowrap; }
code, pre, .url { font: 13px/1.45 "DejaVu Sans Mono", monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 8px 0; }
.fields td:first-child { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; } .dim { color: var(--dim); font-size: 13px; }
.missing, .missing td, .missing b { color: var(--bad); } tr.missing { background: #ffebe9; }
tr.empty b { color: var(--dim); font-weight: 400; } .advice { color: #7d4e00; }
#excerpt { margin-bottom: 0; background: #f6f8fa; padding: 8px; }
#excerpt .here { background: #ffd8d3; }
iframe { width: 100%; height: 280px; border: 1px solid var(--line); border-radius: 4px;
  background: #fff; }
.mail { margin-top: 12px; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
.mail > * { padding: 0 12px; } .mail .head { background: #f6f8fa; padding: 6px 12px; }
.mail .head th { width: 1%; } .mail iframe { border: 0; padding: 0; height: 260px; display: block; }
summary h2 { display: inline; color: #1f2328; }
summary { cursor: pointer; color: var(--dim); font-size: 13px; padding: 4px 0; }
"""

_SCRIPT = """
const live = document.getElementById("live");
const version = document.body.dataset.version;
let answered = true;
async function look() {
  try {
    const response = await fetch("/version", {cache: "no-store"});
    if (await response.text() !== version) { location.reload(); return; }
    if (!answered) { location.reload(); return; }
  } catch (error) {
    answered = false;
    live.textContent = "pop3-try has ended; this is what it saw last";
  }
  setTimeout(look, 500);
}
setTimeout(look, 500);
"""

_ADDRESSED = re.compile(r":([0-9]+): ")


def _says(step: Any) -> str:
    """Return what there is to say of a step: its note, or where it leads."""
    if step.page is not None and (target := step.page.headers.get("location")):
        return f"→ {target}"
    if step.page is not None and (target := step.page.headers.get("refresh")):
        return f"Refresh: {target}"
    return str(step.note)


_environment = jinja2.Environment(autoescape=True, trim_blocks=True)
_environment.filters |= {
    "masked": without_secrets,
    "veiled": without_secret_values,
    "says": _says,
    "parts": parts_of,
    "line": lambda place: place.split(":")[-2],
}
_page = _environment.from_string(_TEMPLATE)


def files(look: Look, version: int) -> dict[str, Answer]:
    """Return all there is to serve for one look, by path; version 0 is before the first."""
    body = _page.render(
        look=look,
        version=version,
        title=f"{'✓' if look.good else '✗'} {look.file}",
        excerpt=_excerpt(look),
    )
    made = {
        "/": Answer(body.encode("utf-8", "replace"), policy=PAGE_POLICY),
        "/preview.css": Answer(_STYLE.encode(), "text/css", PAGE_POLICY),
        "/preview.js": Answer(_SCRIPT.encode(), "text/javascript", PAGE_POLICY),
        "/version": Answer(str(version).encode(), "text/plain", PAGE_POLICY),
    }
    # a number in the path: a frame of an earlier look is never taken for one of this
    for number, page in enumerate(look.pages, 1):
        if look.spec is not None:
            show = preview_marked.list_page if page.entries or page.matches else None
            marked = (show or preview_marked.start_page)(look.spec, page.page)
            made[f"/list/{number}/{version}"] = _frame(marked)
    for number, item in enumerate(look.items, 1):
        if look.spec is not None and item.page is not None:
            marked = preview_marked.item_page(look.spec, item.page)
            made[f"/item/{number}/{version}"] = _frame(marked)
        if mail := _mail(item):
            made[f"/mail/{number}/{version}"] = _frame(mail)
    return made


def _frame(text: str) -> Answer:
    return Answer(text.encode("utf-8", "replace"))


def _mail(item: ItemSeen) -> str:
    """Return the HTML of a message, cleaned as a careful mail client does it."""
    message = item.message
    html = "" if message is None else parts_of(message)[1]
    cleaned = nh3.clean(html, tags=nh3.ALLOWED_TAGS - {"img"}, url_schemes={"http", "https"})
    return preview_marked.document(cleaned) if html else ""


def _excerpt(look: Look) -> list[tuple[int, str, bool]]:
    """Return the lines about the first mistake, with which of them it is."""
    first = look.problems[0] if look.problems else ""
    found = _ADDRESSED.search(first[len(look.file) :]) if first.startswith(look.file) else None
    if found is None:
        return []
    try:
        with open(look.file, encoding="utf-8", errors="replace") as stream:
            lines = stream.read().rstrip().splitlines()
    except OSError:
        return []
    here = int(found[1])
    begin = max(1, here - _ABOUT)
    return [
        (number, without_secret_values(line), number == here)
        for number, line in enumerate(lines[begin - 1 : here + _ABOUT], begin)
    ]
