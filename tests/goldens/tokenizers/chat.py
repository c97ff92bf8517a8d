"""Chat templates in the manner of published ones, and conversations to render with them."""

CHATML = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\n你是一个乐于助人的助手。<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) or message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

ALTERNATING = """{% if messages[0]['role'] == 'system' %}
{% set loop_messages = messages[1:] %}
{% set system = '<<SYS>>\\n' + messages[0]['content'].strip() + '\\n<</SYS>>\\n\\n' %}
{% else %}
{% set loop_messages = messages %}
{% set system = '' %}
{% endif %}
{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if loop.index0 == 0 %}{% set content = system + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' + content.strip() + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}
{{ ' '  + content.strip() + ' ' + eos_token }}
{% endif %}
{% endfor %}
"""

NAMESPACES = """{%- set ns = namespace(count=0, last=none, system='') -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] -%}{%- continue -%}{%- endif -%}
  {%- if ns.count >= 4 -%}{%- break -%}{%- endif -%}
  {%- set ns.count = ns.count + 1 -%}
  {%- set ns.last = message -%}
{{ loop.index }}/{{ loop.length }} {{ message.role | upper }}: {{ message.content | trim }}
{% endfor -%}
{{ ns.count }} {{ ns.system|length }} {{ ns.last.role if ns.last is not none else 'nobody' }} {{ bos_token is defined }} {{ pad_token }}
"""

METHODS = """{% for m in messages %}
{{ m.content.split('</think>')[-1].lstrip('\\n') }}|{{ m.content.upper() }}|{{ m.content.title() }}|{{ m.get('name', 'none') }}
{{ m.content.startswith('你') }} {{ m.content.endswith('!') }} {{ m.content.replace('a', 'b') }} {{ m.content.strip('*') }} {{ m.content.rstrip() ~ '.' }}
{% for key, value in m.items() %}{{ key }}={{ value }};{% endfor %} {{ m.keys() | list }} {{ m }}
{% endfor %}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(', ') }}
{{ (messages | last).role }} {{ messages | length }} {{ range(3) | list }} {{ messages[-1]['content'][:3] }} {{ messages[::-1] | map(attribute='role') | list }}
"""

JSON = """{%- set tool = {'name': 'paint', 'size': [512, 512], 'scale': 7.5, 'tiny': 1e-7, 'huge': 1e20, 'on': true, 'none': none, 'zh': '山"水"\\n'} -%}
{{ tool | tojson }}
{{ tool | tojson(indent=2) }}
{{ messages | tojson(separators=(',', ':')) }}
{{ {'b': 1, 'a': [], 'c': {}} | tojson(sort_keys=true, indent=4) }} {{ '山' | tojson(ensure_ascii=true) }} {{ '<a & b>' | tojson }}
{{ tool }} {{ tool.size }} {{ true }} {{ false }} {{ none }} {{ 1.0 }} {{ 2 / 4 }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 'it\\'s' }} {{ ['it\\'s', "q\\"q"] }}
"""

GENERATION = """{% for message in messages %}
    {% if message.role == 'assistant' %}
{% generation %}
{{ message.content }}
        {% endgeneration %}
    {%- generation -%} x {%- endgeneration -%}
    {% else %}
  {# a comment #}
{{ message.content }}{% endif %}

{% endfor %}"""

MACROS = """{% macro say(role, content, end='\\n') -%}
<{{ role }}>{{ content }}{{ end }}
{%- endmacro %}
{% for message in messages -%}
{{ say(message.role, message.content) }}{{ say(message.role, message.content | default('', true) | replace('\\n', ' '), end='') }}
{%- endfor %}
{% if tools %}tools{% elif documents is none %}no documents{% endif %}{{ missing }}{{ missing is defined }}{{ '%s-%s' | format('a', 1) }}
{%+ if true %} kept{% endif +%}

end"""

FIRST = [
    {"role": "system", "content": " 你是诗人 "},
    {"role": "user", "content": "写一首关于山水的诗!\n"},
    {"role": "assistant", "content": "<think>\nplan\n</think>\n\n远看山有色，近听水无声。 😀"},
    {"role": "user", "content": '*it\'s "quoted" & <b>* a\tb\\n'},
]
PLAIN = [{"role": "user", "content": "你好 World"}]
CLASHING = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
LONG = [
    {"role": role, "content": f"{role} {i}"} for i in range(5) for role in ("user", "assistant")
]

TEMPLATES = {
    "chatml": CHATML,
    "alternating": ALTERNATING,
    "namespaces": NAMESPACES,
    "methods": METHODS,
    "json": JSON,
    "generation": GENERATION,
    "macros": MACROS,
    "line_ends": CHATML.replace("\n", "\r\n"),
}
CONVERSATIONS = {"first": FIRST, "plain": PLAIN, "clashing": CLASHING, "long": LONG}

CHATS = [
    (f"{template}/{conversation}", TEMPLATES[template], CONVERSATIONS[conversation], generation)
    for template in TEMPLATES
    for conversation in CONVERSATIONS
    for generation in (False, True)
    if generation or conversation == "first"
]
