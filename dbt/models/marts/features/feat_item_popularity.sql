{{ config(indexes=[{'columns': ['item_id', 'event_timestamp'], 'unique': true}]) }}

with

interactions as (

    select * from {{ ref('fct_interactions') }}

),

activity_per_day as (

    select
        item_id,
        occurred_date as active_date,
        count(*)::integer as interactions,
        sum(rating) as rating_sum,
        count(rating)::integer as rating_count

    from interactions
    group by item_id, occurred_date

),

active_months as (

    select distinct
        item_id,
        date_trunc('month', active_date::timestamp)::date as active_month

    from activity_per_day

),

-- The midnights that a row is stated for: the end of an active month, and `as_of`, which also stands in for the end of
-- a month that is not over.
snapshots as (

    select
        item_id,
        least(
            (active_month + interval '1 month')::date,
            {{ utc_date(as_of()) }}
        ) as snapshot_date

    from active_months

    union

    select
        item_id,
        {{ utc_date(as_of()) }} as snapshot_date

    from active_months

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

)

select
    item_id,
    {{ utc_midnight('calendar_date') }} as event_timestamp,
    interactions_total as item_interactions_total,
    coalesce(interactions_90d, 0) as item_interactions_90d,
    rating_sum / nullif(rating_count, 0) as item_mean_rating

from running_totals
where is_snapshot
