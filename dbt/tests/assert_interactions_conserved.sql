-- Every different event in raw before as_of and in the build's domains is in the mart once, and nothing else is. In an
-- incremental build: of the users whose events it changed. An event that came while the build was at work may be in the
-- mart or not: the next build takes it in. (Once: the mart's index on event_id is unique.)
with

raw_events as (

    select
        event_id,
        bool_or(landed_tx < {{ seen_before() }}) as was_there
    from {{ ref('stg_raw__interactions') }}
    where
        occurred_at < {{ as_of() }}
        and domain in {{ domains() }}
        and {{ if_changed('user_id') }}
    group by event_id

),

facts as (

    select * from {{ ref('fct_interactions') }}
    where {{ if_changed('user_id') }}

)

select
    raw_events.event_id as raw_event,
    facts.event_id as mart_event
from raw_events
full outer join facts on raw_events.event_id = facts.event_id
where
    raw_events.event_id is null
    or (raw_events.was_there and facts.event_id is null)
order by raw_event asc, mart_event asc
limit 100
