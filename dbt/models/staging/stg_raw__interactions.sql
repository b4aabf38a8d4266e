with

interactions as (

    select * from {{ source('raw', 'interactions') }}

)

select
    event_id collate "C" as event_id,
    user_id collate "C" as user_id,
    item_id collate "C" as item_id,
    domain,
    event_type,
    rating,
    context,
    occurred_at,
    source,
    landed_partition,
    landed_tx

from interactions
