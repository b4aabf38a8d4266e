-- Joining clicks neither loses nor multiplies an impression. One that came while the build was at work may be in the
-- mart or not; the transaction that wrote it says when (its 32 bits are enough until four thousand million of them).
-- (Multiplies: the mart's index on event_id is unique.)
with

raw_impressions as (

    select
        event_id,
        xmin::text::bigint < {{ seen_before() }} as was_there
    from {{ source('raw', 'impressions') }}
    where
        shown_at < {{ as_of() }}
        and domain in {{ domains() }}

),

facts as (

    select * from {{ ref('fct_impressions') }}

)

select
    raw_impressions.event_id as raw_event,
    facts.event_id as mart_event
from raw_impressions
full outer join facts on raw_impressions.event_id = facts.event_id
where
    raw_impressions.event_id is null
    or (raw_impressions.was_there and facts.event_id is null)
order by raw_event asc, mart_event asc
limit 100
