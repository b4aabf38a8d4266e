{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=[stated_after_a_change('user_id')],
        indexes=[{'columns': ['user_id', 'event_timestamp'], 'unique': true}]
    )
}}

with

changed as not materialized (

    select * from {{ ref('int_interactions_changed') }}

),

-- What is stated for the midnights up to a user's earliest change stays.
{% if is_incremental() %}
    users_since as (

        {{ changed_since('user_id') }}

    ),
{% endif %}

-- Read twice; not materialized, so that each step reads only the columns that it needs.
interactions as not materialized (

    select * from {{ ref('fct_interactions') }}
    {% if is_incremental() %}
        where user_id in (select user_id from changed)
    {% endif %}

),

activity_per_day as (

    select
        user_id,
        occurred_date as active_date,
        count(*)::integer as interactions,
        sum(rating) as rating_sum,
        count(rating)::integer as rating_count

    from interactions
    group by user_id, occurred_date

),

first_meetings as (

    select
        user_id,
        item_id,
        min(occurred_date) as active_date

    from interactions
    group by user_id, item_id

),

new_items_per_day as (

    select
        user_id,
        active_date,
        count(*)::integer as new_items

    from first_meetings
    group by user_id, active_date

),

days as (

    select
        activity_per_day.*,
        {{ day_number('activity_per_day.active_date') }} as active_day,
        coalesce(new_items_per_day.new_items, 0) as new_items

    from activity_per_day
    left join new_items_per_day using (user_id, active_date)

),

-- A row is known from the midnight that ends its day. The 30 days before that midnight are the day itself and the 29
-- before it.
running_totals as (

    select
        user_id,
        {{ utc_midnight('active_date + 1') }} as event_timestamp,
        sum(interactions) over so_far as interactions_total,
        sum(interactions) over last_30_days as interactions_30d,
        sum(new_items) over so_far as distinct_items,
        sum(rating_sum) over so_far as rating_sum,
        sum(rating_count) over so_far as rating_count

    from days
    window
        so_far as (partition by user_id order by active_day),
        last_30_days as (
            partition by user_id
            order by active_day
            range between 29 preceding and current row
        )

)

select
    user_id,
    event_timestamp,
    interactions_total as user_interactions_total,
    interactions_30d as user_interactions_30d,
    distinct_items as user_distinct_items,
    rating_sum / nullif(rating_count, 0) as user_mean_rating

from running_totals
{% if is_incremental() %}
    inner join users_since using (user_id)
    where running_totals.event_timestamp > {{ utc_midnight('users_since.since_date') }}
{% endif %}
