{#
    Built by recsys_insight, whole: a row a user, category and midnight that changes something is too many for the
    pipeline's way, and serving reads none of them.
#}
{{ config(indexes=[{'columns': ['user_id', 'category', 'event_timestamp'], 'unique': true}]) }}

with

interactions as (

    select * from {{ ref('fct_interactions') }}

),

-- An item of several categories counts whole in each: the windows of two categories are no parts of one.
categories_of_items as (

    select distinct
        items.item_id,
        category

    from {{ ref('dim_items') }} as items
    cross join unnest(items.categories) as category

),

activity_per_day as (

    select
        interactions.user_id,
        categories_of_items.category,
        {{ day_number('interactions.occurred_date') }} as active_day,
        count(*)::integer as events,
        (count(*) - count(interactions.rating))::integer as implicit,
        coalesce(sum(interactions.rating), 0) as rating_sum,
        count(interactions.rating)::integer as rating_count

    from interactions
    inner join categories_of_items using (item_id)
    group by interactions.user_id, categories_of_items.category, interactions.occurred_date

),

{{
    rolling_windows(['user_id', 'category'], {
        'events': window_days(), 'implicit': [90], 'rating_sum': [90], 'rating_count': [90]
    }, is_incremental_mart=false)
}}

select
    user_id,
    category,
    {{ stated_windows('user_category') }},
    {{ recent_mean_rating() }} as user_category_recent_mean_rating

from windows
