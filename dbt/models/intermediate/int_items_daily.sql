{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=[
            "(item_id, active_date) in (select item_id, occurred_date from intermediate.int_interactions_changed)"
        ],
        indexes=[{'columns': ['item_id', 'active_date'], 'unique': true}, {'columns': ['active_date']}],
        post_hook="{{ analyze_what_is_new() }}"
    )
}}

with

changed as not materialized (

    select * from {{ ref('int_interactions_changed') }}

),

interactions as (

    select interactions.* from {{ ref('fct_interactions') }} as interactions
    {% if is_incremental() %}
        where
            interactions.occurred_date in (select occurred_date from changed)
            and exists (
                select from changed
                where
                    changed.item_id = interactions.item_id
                    and changed.occurred_date = interactions.occurred_date
            )
    {% endif %}

)

select
    item_id,
    occurred_date as active_date,
    min(domain) as domain,
    count(*)::integer as interactions,
    sum(rating) as rating_sum,
    count(rating)::integer as rating_count

from interactions
group by item_id, occurred_date
-- The days of an item lie together, which is how they are read.
order by item_id asc, occurred_date asc
