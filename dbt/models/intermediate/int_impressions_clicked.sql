with

interactions as (

    select * from {{ ref('stg_raw__interactions') }}
    where
        event_type = 'click'
        and occurred_at < {{ as_of() }}
        and domain in {{ domains() }}

),

clicks as (

    select
        case when context is json object then context::jsonb ->> 'request_id' end as request_id,
        user_id,
        item_id,
        occurred_at

    from interactions

),

impressions as (

    select * from {{ ref('stg_raw__impressions') }}

),

clicked as (

    select
        clicks.request_id,
        clicks.user_id,
        clicks.item_id,
        min(clicks.occurred_at) filter (where clicks.occurred_at >= impressions.shown_at) as clicked_at,
        count(*) filter (where clicks.occurred_at < impressions.shown_at) as early_clicks

    from clicks
    inner join impressions
        on
            clicks.request_id = impressions.request_id
            and clicks.user_id = impressions.user_id
            and clicks.item_id = impressions.item_id
    group by clicks.request_id, clicks.user_id, clicks.item_id

)

select * from clicked
