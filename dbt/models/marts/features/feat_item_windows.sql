{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=[
            "item_id in (select item_id from intermediate.int_interactions_changed)",
            "event_timestamp > (select as_of::timestamp at time zone 'UTC' from intermediate.builds where state = 'complete')"
        ],
        indexes=[{'columns': ['item_id', 'event_timestamp'], 'unique': true}]
    )
}}

with

changed as not materialized (

    select * from {{ ref('int_interactions_changed') }}

),

-- An incremental build states the changed items anew, and of the others the midnights that have come since: for those
-- it needs no day that has left the longest window.
-- Decayed popularity: an event counts half as much every 30 days, and no more after the longest window. An event's
-- weight grows with its day, here counted from 2000 so that it stays far from the end of the numbers, and the sum is
-- scaled back at the midnight that it is stated for.
activity_per_day as (

    select
        item_id,
        {{ day_number('active_date') }} as active_day,
        interactions,
        interactions - rating_count as implicit,
        coalesce(rating_sum, 0) as rating_sum,
        rating_count,
        interactions * power(2, ({{ day_number('active_date') }} - 10957) / 30.0::double precision) as weight

    from {{ ref('int_items_daily') }}
    {% if is_incremental() %}
        where
            active_date >= {{ previous_as_of() }} - {{ longest_window() }}
            or item_id in (select item_id from changed)
    {% endif %}

),

moves_per_day as (

    select
        item_id,
        active_day + 1 + after as stated_day,
        sum({{ moved('interactions', 1) }}) as moved_1d,
        sum({{ moved('interactions', 7) }}) as moved_7d,
        sum({{ moved('interactions', 30) }}) as moved_30d,
        sum({{ moved('interactions', 90) }}) as moved_90d,
        sum({{ moved('implicit', 90) }}) as moved_implicit,
        sum({{ moved('rating_sum', 90) }}) as moved_rating_sum,
        sum({{ moved('rating_count', 90) }}) as moved_rating_count,
        sum({{ moved('weight', 90) }}) as moved_weight,
        max(active_day) filter (where after = 0) as active_day

    from activity_per_day
    cross join {{ entering_and_leaving() }}
    where active_day + 1 + after <= {{ day_number(utc_date(as_of())) }}
    group by item_id, active_day + 1 + after

),

windows as (

    select
        item_id,
        stated_day,
        sum(moved_1d) over so_far as events_1d,
        sum(moved_7d) over so_far as events_7d,
        sum(moved_30d) over so_far as events_30d,
        sum(moved_90d) over so_far as events_90d,
        sum(moved_implicit) over so_far as implicit_90d,
        sum(moved_rating_sum) over so_far as rating_sum,
        sum(moved_rating_count) over so_far as rating_count,
        sum(moved_weight) over so_far as weight,
        max(active_day) over so_far as last_active_day

    from moves_per_day
    window so_far as (partition by item_id order by stated_day)

)

select
    item_id,
    {{ utc_midnight("date '1970-01-01' + stated_day") }} as event_timestamp,
    events_1d::bigint as item_events_1d,
    events_7d::bigint as item_events_7d,
    events_30d::bigint as item_events_30d,
    events_90d::bigint as item_events_90d,
    implicit_90d::bigint as item_implicit_90d,
    (stated_day - 1 - last_active_day)::bigint as item_days_since_event,
    case
        when events_90d = 0 then 0
        else round((weight / power(2, (stated_day - 1 - 10957) / 30.0::double precision))::numeric, 9)
    end::double precision as item_events_decayed,
    round((rating_sum / nullif(rating_count, 0))::numeric, 9)::double precision as item_recent_mean_rating

from windows
{% if is_incremental() %}
    where
        stated_day > {{ day_number(previous_as_of()) }}
        or item_id in (select item_id from changed)
{% endif %}
