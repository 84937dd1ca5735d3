"""Templates that try to reach out, run on or grow: each ends fast, with the right reason."""

import threading
import time
from typing import Any

import pytest

from beam_pipelines.templates.compile import CompiledTemplate
from beam_pipelines.templates.files import Template, TemplateError
from cappy_model.sandbox.budget import MAX_CHARACTERS, MAX_ITERATIONS, RenderError
from cappy_model.sandbox.guard import SENTINEL

ROW: dict[str, Any] = {
    "text": "some text",
    "long": "ab " * 1_000_000,
    "number": 7,
    "items": ["a", "b", "c"],
    "record": {"key": "value", "items": [1, 2]},
    "none": None,
}
SECONDS = 2.0


def compiled(jinja: str, choices: str | None = None, truncate: int | None = None) -> CompiledTemplate:
    template = Template(id="id", name="name", jinja=jinja, answer_choices=choices)
    return CompiledTemplate(template, truncate=truncate, seed=1)


def written(expression: str, row: dict[str, Any] | None = None) -> str:
    rendered = compiled(expression + " ||| target").render(row or ROW, "e")
    assert rendered is not None
    return rendered.instruction


REFUSED_AT_COMPILE = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ text.format.__globals__ }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ lipsum(n=10000) }}",
    "{{ lipsum.__globals__ }}",
    "{{ cycler('a').next() }}",
    "{{ joiner() }}",
    "{{ dict(a=1) }}",
    "{{ text.center(10) }}",
    "{{ text.zfill(999999999) }}",
    "{{ text.ljust(999999999) }}",
    "{{ text.expandtabs(999999999) }}",
    "{{ text.encode() }}",
    "{{ text.format_map(record) }}",
    "{{ record.popitem() }}",
    "{{ text | center(999999999) }}",
    "{{ text | indent(999999999) }}",
    "{{ text | attr('__class__') }}",
    "{{ items | pprint }}",
    "{{ items | batch(2) | list }}",
    "{{ items | groupby('x') }}",
    "{{ text | nosuchfilter }}",
    "{{ text is nosuchtest }}",
    "{{ text is callable }}",
    "{% include 'other' %}",
    "{% import 'other' as other %}",
    "{% from 'other' import name %}",
    "{% extends 'other' %}",
    "{% block name %}{% endblock %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% call text() %}{% endcall %}",
    "{% filter upper %}text{% endfilter %}",
    "{{ items['append'](1) }}",
    "{{ record['items']() }}",
    "{{ (text.upper)() ('x') }}",
    "{{ text.upper(*items) }}",
    "{{ text | join(**record) }}",
    "{{ 0x" + "f" * 1_000 + " }}",
    "{{ 1" + "0" * 5_000 + " }}",
    "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
    "{{ " + "-" * 5_000 + "1 }}",
    "{{ " + "1+" * 5_000 + "1 }}",
    "{{ text" + ".a" * 5_000 + " }}",
    "{% for a in items %}" * 150 + "{% endfor %}" * 150,
    "{% set a %}" * 150 + "{% endset %}" * 150,
    "{% if text %}" * 1_000 + "{% endif %}" * 1_000,
    "x" * 32_001,
    "{{ unclosed",
    "{% if text %}",
    "{{ text | }}",
    f"{{{{ text }}}} {SENTINEL} x",
]


@pytest.mark.parametrize("jinja", REFUSED_AT_COMPILE, ids=lambda jinja: jinja[:40])
def test_what_is_not_allowed_does_not_compile(jinja: str) -> None:
    started = time.thread_time()
    with pytest.raises(TemplateError, match="template 'name'"):
        compiled(jinja + " ||| target")
    assert time.thread_time() - started < SECONDS


DOUBLING = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = OPERATION %}{% endfor %}{{ ns.x }}"
NESTING = "{% set ns = namespace(x=[], y=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
NESTING_TOO = "{% for i in range(60) %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
FROM_ABOVE = (
    "{% set l = [] %}{% set ns = namespace(at=l) %}{% for i in range(60) %}{% set inner = [] %}"
    "{% set x = ns.at.append(inner) %}{% set x = ns.at.append(inner) %}{% set ns.at = inner %}{% endfor %}{{ l }}"
)
TOO_MANY_ITERATIONS = [
    "{% for i in range(1000000000) %}x{% endfor %}",
    "{% for i in range(50001) %}x{% endfor %}",
    "{% for i in range(300) %}{% for j in range(300) %}{% endfor %}{% endfor %}",
    "{% for a in long %}{% endfor %}",
    "{% for i in range(100) %}{% for a in items * 100 %}{% for b in items * 100 %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for i in range(20) recursive %}{{ loop(range(20)) if loop.depth < 8 }}{% endfor %}",
    "{% for i in [1] recursive %}{{ loop([]) }}{{ loop([1, 1]) if loop.depth < 40 }}{% endfor %}",
    "{{ range(10 ** 20) | length }}",
    "{{ 'x' in range(1000000000) }}",
    "{{ ([text] * 100000) | join }}",
    "{{ 1000000000 * items }}",
]
TOO_LARGE = [
    "{{ 'x' * 1000000000 }}",
    "{{ 1000000000 * 'x' }}",
    "{{ long ~ long }}",
    "{{ long + long }}",
    "{{ [long, long] | join }}",
    "{{ ','.join([long, long]) }}",
    "{{ (long * 1).join(items) }}",
    "{{ long }}{{ long }}",
    "{{ [long, long] }}",
    "{{ long | replace('a', 'aaa') }}",
    "{{ long.replace('a', 'aaa') }}",
    "{{ ('a' * 4000).replace('', 'a' * 4000) }}",
    "{{ ('a' * 4000) | replace('', 'a' * 4000) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%.999999999f' % 1.5 }}",
    "{{ '%(key)999999999s' % record }}",
    "{{ '%999999999s' | format(1) }}",
    "{{ '%s%s' % (long, long) }}",
    "{{ '%(a)s%(a)s' % {'a': long} }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:.999999999f}'.format(1.5) }}",
    "{{ '{0}{0}'.format(long) }}",
    "{{ '{a}{a}'.format(a=long) }}",
    "{{ 10 ** (10 ** 8) }}",
    "{{ 7 ** 100000000 }}",
    "{{ (10 ** 3000) * (10 ** 3000) }}",
    "{{ ('f' * 3000000) | int(base=16) }}",
    "{{ 5 | round(1000000000) }}",
    "{{ 5.5 | round(1000000000, 'ceil') }}",
    "{{ long | e }}",
    "{{ long | highlight | highlight ~ long }}",
    DOUBLING.replace("OPERATION", "ns.x ~ ns.x"),
    DOUBLING.replace("OPERATION", "ns.x + ns.x"),
    DOUBLING.replace("OPERATION", "ns.x * 2"),
    DOUBLING.replace("OPERATION", "'%s%s' % (ns.x, ns.x)"),
    DOUBLING.replace("OPERATION", "'{}{}'.format(ns.x, ns.x)"),
    DOUBLING.replace("OPERATION", "[ns.x, ns.x] | join"),
    DOUBLING.replace("OPERATION", "ns.x.join(['', ns.x, ''])"),
    DOUBLING.replace("OPERATION", "ns.x.replace('b', 'bb')"),
    "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "{% set l = [] %}{% set x = l.append(l) %}{% set x = l.append(l) %}{{ l }}",
    "{% set d = {} %}{% set x = d.update({'d': d, 'e': d}) %}{{ d }}",
    NESTING + "{{ ns.x }}",
    FROM_ABOVE,
    "{% for i in range(50000) %}" + "template text " * 1_000 + "{% endfor %}",
    "{% for i in range(50000) %}{% set x %}" + "template text " * 1_000 + "{% endset %}{% endfor %}",
    "{% for i in [1] %}{% for j in range(49000) %}{{ text * 10 }}{% endfor %}{% endfor %}",
]
TOO_MUCH_WORK = [
    "{% for i in range(50000) %}{% set x = long[1:] %}{% endfor %}",
    "{% for i in range(50000) %}{% set x = long.upper() %}{% endfor %}",
    "{% for i in range(50000) %}{% set x = long | lower %}{% endfor %}",
    "{% for i in range(50000) %}{% if long == long[1:] %}{% endif %}{% endfor %}",
    "{% for i in range(50000) %}{% if 'zz' in long %}{% endif %}{% endfor %}",
    "{% for i in range(50000) %}{% if long is eq(text) %}{% endif %}{% endfor %}",
    "{% for i in range(50000) %}{% set x = long.split() %}{% endfor %}",
    "{% for i in range(50000) %}{% set x = long | list | sort %}{% endfor %}",
    "{% for i in range(50000) %}{% set x = long | wordcount %}{% endfor %}",
    "{% for i in range(50000) %}{% set x = long | map('upper') | list %}{% endfor %}",
    "{% for i in range(50000) %}{% set x = long.index('b a') + long.count('zz') %}{% endfor %}",
    "{% for i in range(50000) %}{% set x = items.index('c') + items.count(long) %}{% endfor %}",
    "{% for i in range(50000) %}" + "{% set x = 1 %}" * 1_800 + "{% endfor %}",
    "{% for i in range(50000) %}" + "{% if text.a %}{% endif %}" * 1_000 + "{% endfor %}",
    "{% for i in range(9) recursive %}"
    + "{% set x = 1 %}" * 1_800
    + "{{ loop(range(20)) if loop.depth < 4 }}{% endfor %}",
    "{% for i in range(50000) %}{% set x = long | unique | list %}{% endfor %}",
    "{% for i in range(50000) %}{% set x = long | title | max %}{% endfor %}",
    "{{ long.strip(long) }}",
    "{{ long | trim(long) }}",
    "{{ long.rsplit(long) }}",
    "{% set big = (range(20000) | list) %}{{ big | map(attribute='a.' * 20000) | list }}",
    NESTING + NESTING_TOO + "{{ ns.x == ns.y }}",
    NESTING + NESTING_TOO + "{{ [ns.x] is eq([ns.y]) }}",
    NESTING + "{{ ns.x in [ns.y, ns.y] }}",
    NESTING + "{{ [ns.x, ns.x] | unique | list }}",
    NESTING.replace("x=[]", "x=()").replace("[ns.x, ns.x]", "(ns.x, ns.x)") + "{{ [ns.x, ns.x] | unique | list }}",
    NESTING.replace("x=[]", "x=()").replace("[ns.x, ns.x]", "(ns.x, ns.x)") + "{{ [ns.x] | most_frequent }}",
    DOUBLING.replace("'ab'", "[1]").replace("OPERATION", "ns.x + ns.x"),
    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set x = ns.l.extend(ns.l) %}{% endfor %}",
]
UNSAFE = [
    "{{ text['__class__'] }}",
    "{{ text['__cla' ~ 'ss__'] }}",
    "{{ text._private }}",
    "{{ '{0.__class__}'.format(text) }}",
    "{{ '{a.key}'.format(a=record) }}",
    "{{ '{0[key]}'.format(record) }}",
    "{{ '{:{}}'.format(1, 999999999) }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%(a(b))999999999s' % {'a(b)': 1} }}",
    "{{ namespace(a=1) }}",
    "{% for a in items %}{{ loop }}{% endfor %}",
    "{{ record.update(items) }}",
    "{{ {text: 1, (text, text): 2} }}",
    "{{ record[(1, 2)] }}",
    "{{ record[long] }}",
    "{{ record.get(long) }}",
    "{{ [[1], [2]] | sum(start=[]) }}",
    "{{ items | map(' call', 'append') | list }}",
]
TEMPLATE_ERROR = [
    "{{ 1 / 0 }}",
    "{{ 'x' + 1 }}",
    "{{ none + 'x' }}",
    "{{ items.index('nowhere') }}",
    "{% for a in number %}{% endfor %}",
    "{{ items | map('nosuchfilter') | list }}",
    "{{ '%d' % text }}",
    "{{ '{'.format(1) }}",
    "{{ '{5}'.format(1) }}",
    "{{ [] | choice }}",
    "{{ text | truncate(2) }}",
    "{{ 2.0 ** 100000 }}",
    "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% for i in [[[]]] recursive %}{{ loop([i]) if i is sequence else 'x' }}{% endfor %}",
]
UNDEFINED = ["{{ nothing.attribute }}", "{{ none.upper() }}", "{{ record.absent.deeper }}", "{{ items[9].upper() }}"]
ATTACKS = [
    *(("too_many_iterations", jinja) for jinja in TOO_MANY_ITERATIONS),
    *(("output_too_large", jinja) for jinja in TOO_LARGE),
    *(("too_much_work", jinja) for jinja in TOO_MUCH_WORK),
    *(("unsafe", jinja) for jinja in UNSAFE),
    *(("template_error", jinja) for jinja in TEMPLATE_ERROR),
    *(("undefined", jinja) for jinja in UNDEFINED),
]


@pytest.mark.parametrize(("reason", "jinja"), ATTACKS, ids=lambda value: value[:60])
def test_an_attack_ends_fast_with_its_reason(reason: str, jinja: str) -> None:
    template = compiled(jinja + " ||| target")
    started = time.thread_time()
    with pytest.raises(RenderError) as raised:
        template.render(ROW, "e")
    assert raised.value.reason == reason
    assert raised.value.detail
    assert time.thread_time() - started < SECONDS


def test_attacks_in_answer_choices_are_bounded_too() -> None:
    with pytest.raises(TemplateError, match="output_too_large"):
        compiled("{{ text }} ||| x", "{{ 'x' * 1000000000 }}")
    with pytest.raises(RenderError, match="output_too_large"):
        compiled("{{ text }} ||| x", "{{ text * 1000000000 }}").render(ROW, "e")


def test_the_bounds_are_exact() -> None:
    assert written(f"{{% for i in range({MAX_ITERATIONS}) %}}x{{% endfor %}}") == "x" * MAX_ITERATIONS
    size = MAX_CHARACTERS // 2  # built once, written once
    assert len(written(f"{{{{ 'x' * {size} }}}}")) == size
    with pytest.raises(RenderError, match="output_too_large"):
        written(f"{{{{ 'x' * {size + 1} }}}}")


EXPRESSIONS = {
    "{{ items | join(', ') }}": "a, b, c",
    "{{ items | first }}{{ items | last }}{{ items | length }}": "ac3",
    "{{ items | reverse | join }}": "cba",
    "{{ items | map('upper') | select('ne', 'B') | join }}": "AC",
    "{{ items | map('replace', 'a', 'b') | unique | join }}": "bc",
    "{{ [{'n': 1}, {'n': 2}] | map(attribute='n') | sum }}": "3",
    "{{ [{'n': 1}, {'n': 2}] | selectattr('n', 'equalto', 2) | list }}": "[{'n': 2}]",
    "{{ [{'n': 1}, {'n': 2}] | rejectattr('n', 'gt', 1) | list | length }}": "1",
    "{{ ['b', 'a', 'b'] | most_frequent }}": "['b']",
    "{{ [3, 1, 2] | sort | join }}{{ [3, 1] | max }}{{ [3, 1] | min }}": "12331",
    "{{ record | dictsort | first | first }}": "items",
    "{{ record.key }}{{ record['items'][0] }}{{ record.items }}": "value1[1, 2]",
    "{% for k, v in record.items() %}{{ k }}{% if not loop.last %},{% endif %}{% endfor %}": "key,items",
    "{% for a in items if a != 'b' %}{{ loop.index }}{{ a }}/{{ loop.length }} {% else %}none{% endfor %}": "1a/2 2c/2",
    "{% for a in [] %}x{% else %}none{% endfor %}": "none",
    "{% for a, b in zip(items, [1, 2]) %}{{ a }}{{ b }}{{ loop.cycle('!', '?') }}{% endfor %}": "a1!b2?",
    "{% for n in [[1, [2]]] recursive %}{{ loop(n) if n is sequence else n }}{% endfor %}": "12",
    "{% set ns = namespace(n=0) %}{% for a in items %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}": "3",
    "{% set x %}[{{ text }}]{% endset %}{{ x | upper }}": "[SOME TEXT]",
    "{% with a = text %}{{ a }}{% endwith %}": "some text",
    "{{ text.split(' ') | list }}{{ text[5:] }}{{ items[::-1] }}": "['some', 'text']text['c', 'b', 'a']",
    "{{ 'yes' if number > 5 else 'no' }}{{ 'x' if 1 < number < 9 }}{{ 'y' if 'te' in text }}": "yesxy",
    "{{ number ** 2 }} {{ number % 4 }} {{ number * 2.5 }} {{ number // 2 }} {{ -number }}": "49 3 17.5 3 -7",
    "{{ '%s-%05.1f%%' % (text, 2.25) }} {{ '%(key)s' % record }} {{ '%d' | format(3) }}": "some text-002.2% value 3",
    "{{ '{} {:>4} {name!r}'.format(1, 2, name='x') }}": "1    2 'x'",
    "{{ 3.14159 | round(2) }} {{ '12' | int + 1 }} {{ 'x' | int }} {{ '1.5' | float }}": "3.14 13 0 1.5",
    "{{ absent }}{{ absent | default('d') }}{{ record.absent }}{{ items[9] }}": "d",
    "{{ text | truncate(6, true, '...', 0) }}|{{ text | title }}|{{ '<' | e }}": "som...|Some Text|&lt;",
    "{{ text is string }}{{ number is odd }}{{ absent is defined }}{{ none is none }}": "TrueTrueFalseTrue",
    "{{ 'a' ~ 1 ~ 2.5 ~ [1] }}": "a12.5[1]",
    "{# a comment with ||| in it #}{{ text -}}   {{ number }}": "some text7",
    "{{ items | join(', ', attribute=0) }}{{ 'b' in items }}{{ ('a', 'b') }}": "a, b, cTrue('a', 'b')",
    "{% set l = [] %}{% for a in items %}{% set x = l.append(a) %}{% endfor %}{{ l }}": "['a', 'b', 'c']",
    "{% for a in items %}{% set x = items.append(a) %}{% endfor %}{{ items | length }}": "6",
    "{{ 'loop' if loop is undefined }}": "loop",
}


@pytest.mark.parametrize(("jinja", "expected"), EXPRESSIONS.items())
def test_what_templates_use_works_as_in_jinja(jinja: str, expected: str) -> None:
    assert written(jinja) == expected


@pytest.mark.parametrize("name", ["range", "zip", "namespace", "loop", "class", "upper", "string", "None_", "l_0_zip"])
def test_a_column_may_have_the_name_of_a_function_or_a_filter(name: str) -> None:
    """It is the column where it is read, and the function where it is called."""
    jinja = (
        "{{ NAME }} {% for i in range(2) %}{{ i }}{% for a, b in zip('x', 'y') %}{{ a ~ b }}{% endfor %}{% endfor %}"
    )
    template = compiled(jinja.replace("NAME", name) + "{% set n = namespace(v=1) %}{{ n.v }} ||| target")
    assert template.variables == {name}
    rendered = template.render({name: "a column"}, "e")
    assert rendered is not None
    assert rendered.instruction == "a column 0xy1xy1"


def test_a_function_needs_no_column() -> None:
    template = compiled(
        "{% for i in range(2) %}{{ i }}{% endfor %} ||| {% set range = text %}{{ range(1)[0] }}{{ range }}"
    )
    assert template.variables == {"text"}
    rendered = template.render(ROW, "e")
    assert rendered is not None
    assert (rendered.instruction, rendered.references) == ("01", ["0some text"])


def test_one_template_renders_in_several_threads() -> None:
    jinja = (
        "{% for a in items %}{% set x = items.append(a) %}{{ text }}{% endfor %} {{ items | choice }} ||| {{ text }}"
    )
    template = compiled(jinja, truncate=100)
    rows = [{"items": ["a", "b"], "text": str(number) * 50} for number in range(200)]
    alone = [template.render(row, str(number)) for number, row in enumerate(rows)]
    found: list[list[Any]] = [[] for _ in range(4)]

    def work(results: list[Any]) -> None:
        results.extend(template.render(row, str(number)) for number, row in enumerate(rows))

    threads = [threading.Thread(target=work, args=(results,)) for results in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 4
