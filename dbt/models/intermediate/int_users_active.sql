{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=["user_id in (select user_id from intermediate.int_interactions_changed)"],
        indexes=[{'columns': ['user_id', 'domain'], 'unique': true}],
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
        where user_id in (select user_id from changed)
    {% endif %}

)

select
    user_id,
    domain,
    min(occurred_at) as first_interaction_at,
    max(occurred_at) as last_interaction_at,
    count(*) as interactions

from interactions
group by user_id, domain
