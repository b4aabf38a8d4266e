{{
    config(
        indexes=[
            {'columns': ['event_id'], 'unique': true},
            {'columns': ['shown_at']},
        ]
    )
}}

with

impressions as (

    select * from {{ ref('stg_raw__impressions') }}
    where
        shown_at < {{ as_of() }}
        and domain in {{ domains() }}

),

clicked as (

    select * from {{ ref('int_impressions_clicked') }}

)

select
    impressions.event_id,
    impressions.request_id,
    impressions.user_id,
    impressions.item_id,
    impressions.rank,
    impressions.score,
    impressions.domain,
    impressions.variant,
    impressions.model_version,
    impressions.propensity,
    impressions.rung,
    impressions.shown_at,
    clicked.clicked_at is not null as is_clicked,
    clicked.clicked_at,
    coalesce(clicked.early_clicks, 0) as early_clicks,
    impressions.source

from impressions
left join clicked
    on
        impressions.request_id = clicked.request_id
        and impressions.user_id = clicked.user_id
        and impressions.item_id = clicked.item_id
