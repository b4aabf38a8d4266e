{{
    config(
        indexes=[
            {'columns': ['event_id'], 'unique': true},
            {'columns': ['user_id', 'occurred_at']},
        ]
    )
}}

with

interactions as (

    select * from {{ ref('int_interactions_deduplicated') }}

)

select
    event_id,
    user_id,
    item_id,
    domain,
    event_type,
    rating,
    occurred_at,
    {{ utc_date('occurred_at') }} as occurred_date,
    source

from interactions
