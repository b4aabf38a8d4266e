-- Each summary of the interactions adds up to their number. In an incremental build: to each other, and those of the
-- users whose events it changed to the number of their events.
with

totals as (

    select
        (
            select count(*) from {{ ref('fct_interactions') }}
            where {{ if_changed('user_id') }}
        ) as interactions,
        (
            select coalesce(sum(interaction_count), 0) from {{ ref('dim_users') }}
            where {{ if_changed('user_id') }}
        ) as of_these_users,
        (select coalesce(sum(interaction_count), 0) from {{ ref('dim_users') }}) as of_users,
        (select coalesce(sum(interaction_count), 0) from {{ ref('dim_items') }}) as of_items,
        (select coalesce(sum(interactions), 0) from {{ ref('agg_daily_engagement') }}) as of_days,
        (
            select coalesce(sum(item_interactions_total), 0) from {{ ref('feat_item_popularity') }}
            where event_timestamp = {{ as_of() }}
        ) as of_items_at_as_of

)

select * from totals
where
    interactions != of_these_users
    or not (of_users = all(array[of_items, of_days, of_items_at_as_of]))
