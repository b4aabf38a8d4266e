{# Without a step before the select: with one, PostgreSQL plans the view by itself, and a join cannot use the index. #}
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

from {{ source('raw', 'interactions') }}
