{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=[
            stated_after_a_change('item_id'),
            "event_timestamp >= (select as_of::timestamp at time zone 'UTC' from intermediate.builds where state = 'complete')"
        ],
        indexes=[{'columns': ['item_id', 'event_timestamp'], 'unique': true}]
    )
}}

with

changed as not materialized (

    select * from {{ ref('int_interactions_changed') }}

),

months as not materialized (

    select * from {{ ref('int_items_monthly') }}

),

{% if is_incremental() %}
    -- An incremental build states of the changed items the midnights after the earliest change, and that of the last
    -- build's `as_of`, where its stand-in may have to make way for a month's end. What happened before their windows is
    -- one sum, most of it of whole months.
    items_since as (

        {{ changed_since('item_id') }}

    ),

    changed_items as (

        select
            item_id,
            least(since_date, {{ previous_as_of() }} - 1) as since_date

        from items_since

    ),

    months_and_days as (

        select
            item_id,
            months.active_month as active_date,
            changed_items.since_date,
            months.interactions,
            months.rating_sum,
            months.rating_count

        from months
        inner join changed_items using (item_id)
        where months.active_month < {{ month_of('changed_items.since_date - 91') }}

        union all

        select
            item_id,
            days.active_date,
            changed_items.since_date,
            days.interactions,
            days.rating_sum,
            days.rating_count

        from {{ ref('int_items_daily') }} as days
        inner join changed_items using (item_id)
        where days.active_date >= {{ month_of('changed_items.since_date - 91') }}

    ),

    activity_per_day as (

        select
            item_id,
            greatest(active_date, since_date - 91) as active_date,
            since_date,
            sum(interactions)::integer as interactions,
            sum(rating_sum) as rating_sum,
            sum(rating_count)::integer as rating_count

        from months_and_days
        group by item_id, greatest(active_date, since_date - 91), since_date

    ),

    active_months as (

        select
            item_id,
            changed_items.since_date,
            months.active_month

        from months
        inner join changed_items using (item_id)
        where months.active_month >= {{ month_of('changed_items.since_date') }}

    ),
{% else %}
    activity_per_day as (

        select
            days.*,
            date '-infinity' as since_date

        from {{ ref('int_items_daily') }} as days

    ),

    active_months as (

        select
            item_id,
            date '-infinity' as since_date,
            active_month

        from months

    ),
{% endif %}

known_items as (

    select distinct
        item_id,
        since_date

    from activity_per_day

),

-- The midnights that a row is stated for: the end of an active month, and `as_of`, which also stands in for the end of
-- a month that is not over.
snapshots as (

    select
        item_id,
        since_date,
        least(
            (active_month + interval '1 month')::date,
            {{ utc_date(as_of()) }}
        ) as snapshot_date

    from active_months

    union

    select
        item_id,
        since_date,
        {{ utc_date(as_of()) }} as snapshot_date

    from known_items

),

-- Snapshots join the calendar as days on which nothing happens, so that one pass over it serves both kinds of day.
calendar as (

    select
        item_id,
        active_date as calendar_date,
        interactions,
        rating_sum,
        rating_count,
        false as is_snapshot

    from activity_per_day

    union all

    select
        item_id,
        snapshot_date as calendar_date,
        0 as interactions,
        0 as rating_sum,
        0 as rating_count,
        true as is_snapshot

    from snapshots
    where snapshot_date > since_date

),

calendar_numbered as (

    select
        *,
        {{ day_number('calendar_date') }} as calendar_day

    from calendar

),

-- A snapshot covers the days before it; what happens on its own day comes after its midnight.
running_totals as (

    select
        item_id,
        calendar_date,
        is_snapshot,
        sum(interactions) over days_before as interactions_total,
        sum(interactions) over last_90_days as interactions_90d,
        sum(rating_sum) over days_before as rating_sum,
        sum(rating_count) over days_before as rating_count

    from calendar_numbered
    window
        days_before as (
            partition by item_id
            order by calendar_day
            range between unbounded preceding and 1 preceding
        ),
        last_90_days as (
            partition by item_id
            order by calendar_day
            range between 90 preceding and 1 preceding
        )

),

popularity as (

    select
        item_id,
        {{ utc_midnight('calendar_date') }} as event_timestamp,
        interactions_total as item_interactions_total,
        coalesce(interactions_90d, 0) as item_interactions_90d,
        rating_sum / nullif(rating_count, 0) as item_mean_rating

    from running_totals
    where is_snapshot

)

{% if is_incremental() %}
    ,

    -- The others: what is known of them has not changed, but two midnights may have come: the end of their latest
    -- month, if that was not over in the last build, and `as_of`.
    others as (

        select
            item_id,
            event_timestamp as stated_at,
            item_interactions_total,
            item_mean_rating

        from {{ this }} as stated
        where
            event_timestamp = {{ utc_midnight(previous_as_of()) }}
            and not exists (
                select from changed
                where changed.item_id = stated.item_id
            )

    ),

    month_ends_to_come as (

        select
            item_id,
            (date_trunc('month', max(active_date)::timestamp) + interval '1 month')::date as snapshot_date

        from {{ ref('int_items_daily') }}
        where active_date >= {{ previous_as_of() }} - 31
        group by item_id

    ),

    snapshots_to_come as (

        select
            item_id,
            snapshot_date

        from month_ends_to_come
        where snapshot_date between {{ previous_as_of() }} and {{ utc_date(as_of()) }}

        union

        select
            item_id,
            {{ utc_date(as_of()) }} as snapshot_date

        from others

    ),

    recent_days as (

        select * from {{ ref('int_items_daily') }}
        where active_date >= {{ previous_as_of() }} - 90

    ),

    others_stated as (

        select
            others.item_id,
            {{ utc_midnight('snapshots_to_come.snapshot_date') }} as event_timestamp,
            others.item_interactions_total,
            coalesce(sum(recent_days.interactions), 0) as item_interactions_90d,
            others.item_mean_rating

        from others
        inner join snapshots_to_come using (item_id)
        left join recent_days
            on
                others.item_id = recent_days.item_id
                and recent_days.active_date >= snapshots_to_come.snapshot_date - 90
                and recent_days.active_date < snapshots_to_come.snapshot_date
        group by
            others.item_id,
            snapshots_to_come.snapshot_date,
            others.item_interactions_total,
            others.item_mean_rating

    )
{% endif %}

select * from popularity
{% if is_incremental() %}
    union all
    select * from others_stated
{% endif %}
