{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=["activity_date in (select occurred_date from intermediate.int_interactions_changed)"],
        indexes=[{'columns': ['activity_date', 'domain'], 'unique': true}],
        post_hook="{{ analyze_what_is_new() }}"
    )
}}

with

changed as not materialized (

    select * from {{ ref('int_interactions_changed') }}

),

interactions as (

    select * from {{ ref('fct_interactions') }}
    {% if is_incremental() %}
        where occurred_date in (select occurred_date from changed)
    {% endif %}

),

activity_per_user as (

    select
        occurred_date as activity_date,
        domain,
        user_id,
        count(*) as interactions,
        sum(rating) as rating_sum,
        count(rating) as rating_count

    from interactions
    group by occurred_date, domain, user_id

)

select
    activity_date,
    domain,
    sum(interactions)::bigint as interactions,
    count(*) as active_users,
    sum(rating_sum) as rating_sum,
    sum(rating_count)::bigint as rating_count

from activity_per_user
group by activity_date, domain
