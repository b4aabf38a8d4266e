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
        count(*)::integer as interactions,
        (count(*) - count(interactions.rating))::integer as implicit,
        coalesce(sum(interactions.rating), 0) as rating_sum,
        count(interactions.rating)::integer as rating_count

    from interactions
    inner join categories_of_items using (item_id)
    group by interactions.user_id, categories_of_items.category, interactions.occurred_date

),

moves_per_day as (

    select
        user_id,
        category,
        active_day + 1 + after as stated_day,
        sum({{ moved('interactions', 1) }}) as moved_1d,
        sum({{ moved('interactions', 7) }}) as moved_7d,
        sum({{ moved('interactions', 30) }}) as moved_30d,
        sum({{ moved('interactions', 90) }}) as moved_90d,
        sum({{ moved('implicit', 90) }}) as moved_implicit,
        sum({{ moved('rating_sum', 90) }}) as moved_rating_sum,
        sum({{ moved('rating_count', 90) }}) as moved_rating_count,
        max(active_day) filter (where after = 0) as active_day

    from activity_per_day
    cross join {{ entering_and_leaving() }}
    where active_day + 1 + after <= {{ day_number(utc_date(as_of())) }}
    group by user_id, category, active_day + 1 + after

),

windows as (

    select
        user_id,
        category,
        stated_day,
        sum(moved_1d) over so_far as events_1d,
        sum(moved_7d) over so_far as events_7d,
        sum(moved_30d) over so_far as events_30d,
        sum(moved_90d) over so_far as events_90d,
        sum(moved_implicit) over so_far as implicit_90d,
        sum(moved_rating_sum) over so_far as rating_sum,
        sum(moved_rating_count) over so_far as rating_count,
        max(active_day) over so_far as last_active_day

    from moves_per_day
    window so_far as (partition by user_id, category order by stated_day)

)

select
    user_id,
    category,
    {{ utc_midnight("date '1970-01-01' + stated_day") }} as event_timestamp,
    events_1d::bigint as user_category_events_1d,
    events_7d::bigint as user_category_events_7d,
    events_30d::bigint as user_category_events_30d,
    events_90d::bigint as user_category_events_90d,
    implicit_90d::bigint as user_category_implicit_90d,
    (stated_day - 1 - last_active_day)::bigint as user_category_days_since_event,
    round((rating_sum / nullif(rating_count, 0))::numeric, 9)::double precision as user_category_recent_mean_rating

from windows
