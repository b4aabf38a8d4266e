{# The data interval of this build, from the vars `as_of` and `domains`. Both are checked before they reach any SQL. #}

{# The instant that ends the data, exclusive. #}
{% macro as_of() -%}
    {%- set day = modules.datetime.date.fromisoformat(var('as_of') | string) -%}
    timestamptz '{{ day.isoformat() }} 00:00:00+00'
{%- endmacro %}

{# The domains of this build, as a list of SQL literals in parentheses. #}
{% macro domains() -%}
    {%- set known = ['movies', 'products', 'books', 'social'] -%}
    {%- set chosen = var('domains').split(',') -%}
    {%- for domain in chosen if domain not in known -%}
        {{ exceptions.raise_compiler_error("var domains: " ~ domain ~ ". Choose among " ~ known | join(', ')) }}
    {%- endfor -%}
    ('{{ chosen | join("', '") }}')
{%- endmacro %}

{# The UTC day on which an instant falls. #}
{% macro utc_date(instant) -%}
    ({{ instant }} at time zone 'UTC')::date
{%- endmacro %}

{# Midnight UTC at which a day begins. #}
{% macro utc_midnight(day) -%}
    (({{ day }})::timestamp at time zone 'UTC')
{%- endmacro %}

{# A day as an integer: windows over days run several times faster over integers than over dates and intervals. #}
{% macro day_number(day) -%}
    ({{ day }} - date '1970-01-01')
{%- endmacro %}
