{#
    Windows that end at a midnight. A day's count enters each window at the midnight that ends the day and leaves it so
    many days later; between two such midnights nothing changes. So a row is stated whenever a day enters or leaves, and
    a running sum of what came in and went out is the window, whatever its length, in one pass.

    A mart of windows is three steps: its own `activity_per_day`, then `rolling_windows`, then a last select that names
    the features (`stated_windows`). One that an incremental build changes in place reads through `rows_in_reach`. What
    it states is counted again, event by event, by the macros of recount.sql.
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

{#
    The rows from which this build has to count, each with the day (`since_date`) after which its entity's midnights are
    stated: of the changed entities those after the earliest change, of the others those that have come since the last
    build. For neither it needs a day that has left the longest window by then. In a full build: every row.

    `day` is the column of the row's day. `instant`, where the rows have one, is the column that an index orders an
    entity's rows by. `more_days` reaches further back than the longest window.
#}
{% macro rows_in_reach(rows, entity, day, instant=none, more_days=0) %}
    {%- set changes = ref('int_interactions_changed') -%}
    {%- set reach = longest_window() ~ (' - ' ~ more_days if more_days else '') -%}
    {%- if is_incremental() -%}
    with changed as (

        {{ changed_since(entity) }}

    )

    select
        candidates.*,
        changed.since_date

    from {{ rows }} as candidates
    inner join changed using ({{ entity }})
    where
        {% if instant %}candidates.{{ instant }} >= {{ utc_midnight('changed.since_date - ' ~ reach) }}
        {% else %}candidates.{{ day }} >= changed.since_date - {{ reach }}{% endif %}

    union all

    select
        candidates.*,
        {{ previous_as_of() }} as since_date

    from {{ rows }} as candidates
    where
        candidates.{{ day }} >= {{ previous_as_of() }} - {{ reach }}
        and not exists (
            select from changed
            where changed.{{ entity }} = candidates.{{ entity }}
        )
    {%- else -%}
    select
        candidates.*,
        date '-infinity' as since_date

    from {{ rows }} as candidates
    {%- endif -%}
{% endmacro %}

{#
    The steps `moves_per_day` and `windows`, between `activity_per_day` and the last select.

    `key` names the columns that the windows are of, `lengths` for each amount of a day its windows in days. Reads of
    `activity_per_day` the key, `active_day` (a day number), the amounts, none of them null, and `since_date` where the
    mart is built incrementally. `windows` has a row a key and `stated_day` (a day number): `<amount>_<length>d` of each,
    `last_active_day`, and `since_date`.
#}
{% macro rolling_windows(key, lengths, is_incremental_mart=true) %}
{%- set keys = key | join(', ') -%}
moves_per_day as (

    select
        {{ keys }},
        active_day + 1 + after as stated_day,
        {%- if is_incremental_mart %}
        min(since_date) as since_date,
        {%- endif %}
        {%- for amount, windows in lengths.items() %}{% for days in windows %}
        sum({{ moved(amount, days) }}) as moved_{{ amount }}_{{ days }}d,
        {%- endfor %}{% endfor %}
        max(active_day) filter (where after = 0) as active_day

    from activity_per_day
    cross join {{ entering_and_leaving() }}
    where active_day + 1 + after <= {{ day_number(utc_date(as_of())) }}
    group by {{ keys }}, active_day + 1 + after

),

windows as (

    select
        {{ keys }},
        stated_day,
        {%- if is_incremental_mart %}
        since_date,
        {%- endif %}
        {%- for amount, windows in lengths.items() %}{% for days in windows %}
        sum(moved_{{ amount }}_{{ days }}d) over so_far as {{ amount }}_{{ days }}d,
        {%- endfor %}{% endfor %}
        max(active_day) over so_far as last_active_day

    from moves_per_day
    window so_far as (partition by {{ keys }} order by stated_day)

)
{%- endmacro %}

{# Of a row of `windows`: its instant, and the features that every mart of windows has, named after their subject. #}
{% macro stated_windows(subject) -%}
    {{ utc_midnight("date '1970-01-01' + stated_day") }} as event_timestamp,
    {%- for days in window_days() %}
    events_{{ days }}d::bigint as {{ subject }}_events_{{ days }}d,
    {%- endfor %}
    implicit_90d::bigint as {{ subject }}_implicit_90d,
    (stated_day - 1 - last_active_day)::bigint as {{ subject }}_days_since_event
{%- endmacro %}

{# Of a row of `windows`: the mean rating of the longest window, null without any. #}
{% macro recent_mean_rating() -%}
    round((rating_sum_90d / nullif(rating_count_90d, 0))::numeric, 9)::double precision
{%- endmacro %}
