{#
    The data interval of this build, from the vars `as_of` and `domains`, or from the task (recsys/task.py). Both are checked
    before they reach any SQL. While dbt parses, any day will do: what it parses stays good for the next day's build.
#}
{% macro given(name) -%}
    {%- set value = var(name, none) or (env_var('RECSYS_TASK_' ~ name | upper, '') if execute else none) -%}
    {%- if value -%}{{ return(value | string) }}{%- endif -%}
    {%- if not execute -%}{{ return({'as_of': '1970-01-01', 'domains': 'movies'}[name]) }}{%- endif -%}
    {{ exceptions.raise_compiler_error("var " ~ name ~ " is missing: --vars '{as_of: YYYY-MM-DD, domains: movies}'") }}
{%- endmacro %}

{# The instant that ends the data, exclusive. #}
{% macro as_of() -%}
    {%- set day = modules.datetime.date.fromisoformat(given('as_of')) -%}
    timestamptz '{{ day.isoformat() }} 00:00:00+00'
{%- endmacro %}

{# The domains of this build, as a list of SQL literals in parentheses. #}
{% macro domains() -%}
    {%- set known = ['movies', 'products', 'books', 'social'] -%}
    {%- set chosen = given('domains').split(',') -%}
    {%- for domain in chosen if domain not in known -%}
        {{ exceptions.raise_compiler_error("var domains: " ~ domain ~ ". Choose among " ~ known | join(', ')) }}
    {%- endfor -%}
    ('{{ chosen | join("', '") }}')
{%- endmacro %}

{# The UTC day on which an instant falls. #}
{% macro utc_date(instant) -%}
    ({{ instant }} at time zone 'UTC')::date
{%- endmacro %}

{# The first day of the month of a day. #}
{% macro month_of(day) -%}
    date_trunc('month', ({{ day }})::timestamp)::date
{%- endmacro %}

{# Midnight UTC at which a day begins. #}
{% macro utc_midnight(day) -%}
    (({{ day }})::timestamp at time zone 'UTC')
{%- endmacro %}

{# A day as an integer: windows over days run several times faster over integers than over dates and intervals. #}
{% macro day_number(day) -%}
    ({{ day }} - date '1970-01-01')
{%- endmacro %}
