{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=[
            "(item_id, active_month) in (
                select item_id, date_trunc('month', occurred_date::timestamp)::date
                from intermediate.int_interactions_changed
            )"
        ],
        indexes=[{'columns': ['item_id', 'active_month'], 'unique': true}],
        post_hook="{{ analyze_what_is_new() }}"
    )
}}

with

changed as not materialized (

    select * from {{ ref('int_interactions_changed') }}

),

changed_months as (

    select distinct
        item_id,
        {{ month_of('occurred_date') }} as active_month

    from changed

),

days as (

    select days.* from {{ ref('int_items_daily') }} as days
    {% if is_incremental() %}
        inner join changed_months
            on
                days.item_id = changed_months.item_id
                and days.active_date >= changed_months.active_month
                and days.active_date < (changed_months.active_month + interval '1 month')::date
    {% endif %}

)

select
    item_id,
    {{ month_of('active_date') }} as active_month,
    min(domain) as domain,
    sum(interactions)::bigint as interactions,
    sum(rating_sum) as rating_sum,
    sum(rating_count)::bigint as rating_count

from days
group by item_id, {{ month_of('active_date') }}
