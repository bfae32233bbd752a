"""Specs for the sites of `tests.support.website`."""

from pathlib import Path

from tests.support.website import Website

OLD_SITE = """\
site: Old Jobs
start: URL/
user:
  fields:
    skill:
    miles: {default: 25, allowed: [5, 25]}
    place: {default: ""}
form:
  css: form#search
  fields:
    txtSkill: "{{ user.skill }}"
    selMiles: "{{ user.miles }}"
    txtPlace: "{{ user.place }}"
  submit: input[name=btnGo]
list:
  items: tr.job
  pages: {regex: "Page [0-9]+ of ([0-9]+)"}
  next: a.next
item:
  id: {from: url, filters: [{regex: "id=(W[0-9]+)"}]}
  fields:
    title: {css: h1, required: true}
    place: {regex: "<b>Location:</b> ([^<]*)", filters: [unescape, squeeze]}
    posted: {regex: "<b>Posted:</b> ([^<]*)", filters: [{date: "%d %b %Y"}]}
    text: {css: "#text"}
message:
  from: Old Jobs <jobs@example.org>
  subject: "{{ title }}"
  date: "{{ posted }}"
  text: |
    {{ place }}

    {{ text }}
addresses: [127.0.0.0/8]
"""

BIG_SITE = """\
site: Big
start: URL/
user: {fields: {any: {default: ""}}}
list:
  items: li.item
  next: "a[rel=next]"
item:
  id: {from: url, filters: [{regex: "([0-9]+)$"}, {prefix: big-}]}
  fields:
    title: h1
    text: p
message:
  from: Big <big@example.org>
  subject: "{{ title }}"
  text: "{{ text }}"
limits: {concurrency: 8}
addresses: [127.0.0.0/8]
"""


def write_spec(path: Path, site: Website, text: str = OLD_SITE, more: str = "") -> Path:
    """Write a spec for a running site; `more` are lines for its end."""
    path.write_text(text.replace("URL", site.url) + more)
    return path
