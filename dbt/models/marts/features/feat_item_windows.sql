{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=[
            "(item_id, event_timestamp) in (
                select stated.item_id, stated.event_timestamp
                from marts.feat_item_windows as stated
                inner join (
                    select item_id, min(occurred_date) as since_date
                    from intermediate.int_interactions_changed
                    group by item_id
                ) as changed using (item_id)
                where stated.event_timestamp > changed.since_date::timestamp at time zone 'UTC'
            )",
            "(select is_retry from intermediate.builds where state = 'at work')
            and event_timestamp > (select as_of::timestamp at time zone 'UTC' from intermediate.builds where state = 'complete')"
        ],
        indexes=[{'columns': ['item_id', 'event_timestamp'], 'unique': true}]
    )
}}
-- depends_on: {{ ref('int_interactions_changed') }}

with

{% if is_incremental() %}
    changed as (

        {{ changed_since('item_id') }}

    ),
{% endif %}

days as (

    {% if is_incremental() %}
        -- An incremental build states of the changed items the midnights after the earliest change, of the others those
        -- that have come since: for neither it needs a day that has left the longest window by then.
        select
            days.*,
            changed.since_date

        from {{ ref('int_items_daily') }} as days
        inner join changed using (item_id)
        where days.active_date >= changed.since_date - {{ longest_window() }}

        union all

        select
            days.*,
            {{ previous_as_of() }} as since_date

        from {{ ref('int_items_daily') }} as days
        where
            days.active_date >= {{ previous_as_of() }} - {{ longest_window() }}
            and not exists (
                select from changed
                where changed.item_id = days.item_id
            )
    {% else %}
        select
            days.*,
            date '-infinity' as since_date

        from {{ ref('int_items_daily') }} as days
    {% endif %}

),

-- Decayed popularity: an event counts half as much every 30 days, and no more after the longest window. An event's
-- weight grows with its day, here counted from 2000 so that it stays far from the end of the numbers, and the sum is
-- scaled back at the midnight that it is stated for.
activity_per_day as (

    select
        item_id,
        since_date,
        {{ day_number('active_date') }} as active_day,
        interactions,
        interactions - rating_count as implicit,
        coalesce(rating_sum, 0) as rating_sum,
        rating_count,
        interactions * power(2, ({{ day_number('active_date') }} - 10957) / 30.0::double precision) as weight

    from days

),

moves_per_day as (

    select
        item_id,
        active_day + 1 + after as stated_day,
        min(since_date) as since_date,
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
        since_date,
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
    where stated_day > {{ day_number('since_date') }}
{% endif %}
