with

impressions as (

    select * from {{ source('raw', 'impressions') }}

)

select
    event_id collate "C" as event_id,
    request_id collate "C" as request_id,
    user_id collate "C" as user_id,
    item_id collate "C" as item_id,
    rank,
    score,
    domain,
    variant,
    model_version,
    propensity,
    rung,
    shown_at,
    source

from impressions
