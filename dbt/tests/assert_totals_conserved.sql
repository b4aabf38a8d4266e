-- Each summary of the interactions adds up to their number.
with

totals as (

    select
        (select count(*) from {{ ref('fct_interactions') }}) as interactions,
        (select sum(interaction_count) from {{ ref('dim_users') }}) as of_users,
        (select sum(interaction_count) from {{ ref('dim_items') }}) as of_items,
        (select sum(interactions) from {{ ref('agg_daily_engagement') }}) as of_days,
        (
            select sum(item_interactions_total) from {{ ref('feat_item_popularity') }}
            where event_timestamp = {{ as_of() }}
        ) as of_items_at_as_of

)

select * from totals
where
    interactions > 0
    and not (interactions = all(array[of_users, of_items, of_days, of_items_at_as_of]))
