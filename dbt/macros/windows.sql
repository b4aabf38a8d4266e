{#
    Windows that end at a midnight. A day's count enters each window at the midnight that ends the day and leaves it so
    many days later; between two such midnights nothing changes. So a row is stated whenever a day enters or leaves, and
    a running sum of what came in and went out is the window, whatever its length, in one pass.
#}

{# Lengths of the windows, in days. #}
{% macro window_days() %}{{ return([1, 7, 30, 90]) }}{% endmacro %}

{# The longest of them: what lies further back is in none. #}
{% macro longest_window() %}90{% endmacro %}

{# The days, each as often as it changes a window: `after` is how long its midnight is over, 0 when it enters. #}
{% macro entering_and_leaving() -%}
    (values (0){% for days in window_days() %}, ({{ days }}){% endfor %}) as moves (after)
{%- endmacro %}

{# What enters or leaves the window of so many days. #}
{% macro moved(amount, days) -%}
    case after when 0 then {{ amount }} when {{ days }} then -{{ amount }} else 0 end
{%- endmacro %}
