{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=[stated_after_a_change('item_id'), stated_by_a_killed_build()],
        indexes=[{'columns': ['item_id', 'event_timestamp'], 'unique': true}]
    )
}}

with

days as (

    {{ rows_in_reach(ref('int_items_daily'), 'item_id', day='active_date') }}

),

-- Decayed popularity: an event counts half as much every 30 days, and no more after the longest window. An event's
-- weight grows with its day, here counted from 2000 so that it stays far from the end of the numbers, and the sum is
-- scaled back at the midnight that it is stated for.
activity_per_day as (

    select
        item_id,
        since_date,
        {{ day_number('active_date') }} as active_day,
        interactions as events,
        interactions - rating_count as implicit,
        coalesce(rating_sum, 0) as rating_sum,
        rating_count,
        interactions * power(2, ({{ day_number('active_date') }} - 10957) / 30.0::double precision) as weight

    from days

),

{{
    rolling_windows(['item_id'], {
        'events': window_days(), 'implicit': [90], 'rating_sum': [90], 'rating_count': [90], 'weight': [90]
    })
}}

select
    item_id,
    {{ stated_windows('item') }},
    case
        when events_90d = 0 then 0
        else round((weight_90d / power(2, (stated_day - 1 - 10957) / 30.0::double precision))::numeric, 9)
    end::double precision as item_events_decayed,
    {{ recent_mean_rating() }} as item_recent_mean_rating

from windows
{% if is_incremental() %}
    where stated_day > {{ day_number('since_date') }}
{% endif %}
