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

first_clicks as (

    select
        request_id,
        user_id,
        item_id,
        min(occurred_at) as clicked_at

    from clicks
    where request_id is not null
    group by request_id, user_id, item_id

)

select * from first_clicks
